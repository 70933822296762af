"""A JobSet, submitted and run to its end with a network namespace for each pod."""

from __future__ import annotations

import importlib
import os
import stat
import threading
from pathlib import Path

import pytest

from callsheet import Node, OnFailure, Program
from callsheet.commands.launch_program import launch_program
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import launch
from callsheet.launch.kubernetes.pods import Pods
from tests.launch import manifests, services
from tests.launch.cluster import Cluster
from tests.launch.services import Forever, Mailbox, Phoenix, Tally, Watcher

pytestmark = [pytest.mark.timeout(240), pytest.mark.clusters]


class Files:
  """Notes what its pod was given."""

  def __init__(self, tally: Tally) -> None:
    self._tally = tally

  def run(self) -> None:
    folder = Path('/run/callsheet')
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    self._tally.note((os.uname().nodename, modes))


class Reader:
  """Ends once a file of its own holds so many notes of the others."""

  def __init__(self, tally: Tally, count: int, path: str) -> None:
    self._tally, self._count, self._path = tally, count, path

  def run(self, stop: threading.Event) -> None:
    while len(notes := self._tally.notes()) < self._count and not stop.wait(0.05):
      pass
    Path(self._path).write_text('\n'.join(sorted(map(repr, notes))))


class Total:
  """Ends once the tally counts so many."""

  def __init__(self, tally: Tally, count: int) -> None:
    self._tally, self._count = tally, count

  def run(self, stop: threading.Event) -> None:
    while self._tally.total() < self._count and not stop.wait(0.05):
      pass


class Traced(Forever):
  """Writes down each of its lives; ends in the second."""

  def run(self, stop: threading.Event) -> None:
    with open(f'{self._path}.begun', 'a') as file:
      file.write(f'{self._name}\n')
    if lives(self._path).count(self._name) < 2:
      stop.wait()


def lives(path: str) -> list[str]:
  """The names of the nodes that have begun to run."""
  begun = Path(f'{path}.begun')
  return begun.read_text().split() if begun.exists() else []


def ordered(path: str) -> Program:
  """A chain of calls."""
  program = Program('ordered')
  replay = program.add('replay', Traced, 'replay', path)
  learner = program.add('learner', Traced, 'learner', path, replay)
  program.add('actor', Traced, 'actor', path, learner, replay)
  return program


def consumers() -> Program:
  """A program that ends by itself."""
  program = Program('consumers')
  tally, mailbox = program.add('tally', Tally), program.add('mailbox', Mailbox)
  program.add('producer', services.Producer, mailbox, 20)
  with program.group('consumer'):
    for _ in range(2):
      program.add('consumer', services.Consumer, mailbox, tally)
  program.add(Node('watcher', ends_program=True), Watcher, tally, 20)
  return program


def run(cluster: Cluster, program: Program) -> str:
  """How a program's JobSet ends."""
  assert cluster.backend().submit(program.plan()).startswith(f'jobset {program.name}\n')
  return cluster.end(program.name)


def test_to_the_success_of_the_jobset(kubernetes_cluster):
  assert run(kubernetes_cluster, consumers()) == 'Completed'


@pytest.mark.parametrize('kill', [False, True])
def test_a_node_that_crashes_is_started_again(kubernetes_cluster, kill):
  program = Program('killed' if kill else 'raises')
  tally = program.add('tally', Tally)
  node = Node('phoenix', restart=OnFailure(max_restarts=2, backoff=0.05))
  program.add(node, Phoenix, tally, 1, kill)
  program.add(Node('end', ends_program=True), Total, tally, 2)
  assert run(kubernetes_cluster, program) == 'Completed'


def test_to_its_failure(kubernetes_cluster):
  # No other node ends it: pods come in any order.
  program = Program('failing')
  program.add('heart', services.Heart, program.add('tally', Tally), 'heart')
  program.add('bad', services.BadRun)
  assert run(kubernetes_cluster, program) == 'Failed: launcher'
  log = kubernetes_cluster.log('failing-launcher-0-0')
  assert "node 'bad' failed: tests.launch.services.Oops: no run" in log
  assert 'logs --selector=job-name=failing-bad-0' in log


def test_a_process_that_is_lost_and_may_not_be_restarted(kubernetes_cluster):
  assert run(kubernetes_cluster, services.killed()) == 'Failed: victim'


def test_a_launcher_that_is_lost_takes_the_program_with_it(
  kubernetes_cluster, tmp_path
):
  path = str(tmp_path / 'closed')
  kubernetes_cluster.backend().submit(ordered(path).plan())
  kubernetes_cluster.wait_for(lambda: len(lives(path)) == 3, 'ordered')
  kubernetes_cluster.vanish(0)
  assert kubernetes_cluster.end('ordered') == 'Failed: launcher'


def test_a_launcher_that_is_lost_starts_the_program_anew(kubernetes_cluster, tmp_path):
  path = str(tmp_path / 'closed')
  kubernetes_cluster.backend(restarts=1).submit(ordered(path).plan())
  kubernetes_cluster.wait_for(lambda: len(lives(path)) == 3, 'ordered')
  kubernetes_cluster.vanish(0)
  assert kubernetes_cluster.end('ordered') == 'Completed'
  assert sorted(lives(path)) == sorted(2 * ['actor', 'learner', 'replay'])


def test_an_image_that_lacks_what_nodes_are_made_of(
  kubernetes_cluster, tmp_path, monkeypatch
):
  (tmp_path / 'not_in_the_image.py').write_text('class Service:\n  pass\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  program = Program('lacking')
  program.add('one', importlib.import_module('not_in_the_image').Service)
  with pytest.raises(NodeFailed, match=r"unpickled on 10.*No module named 'not_in_the"):
    launch(
      program, kubernetes_cluster.backend(address=kubernetes_cluster.network.address)
    )


def test_what_pods_are_given(kubernetes_cluster, tmp_path):
  program = Program('files')
  tally = program.add('tally', Tally)
  with program.group('reader'):
    program.add('reader', Files, tally)
    program.add('reader', Files, tally)
  path = str(tmp_path / 'notes')
  program.add(Node('end', ends_program=True), Reader, tally, 2, path)
  assert run(kubernetes_cluster, program) == 'Completed'
  assert (tmp_path / 'notes').read_text().split('\n') == [
    "('files-reader-0-0', {'ticket.json': 256})",
    "('files-reader-0-1', {'ticket.json': 256})",
  ]


def test_a_jobset_that_is_deleted_stops_in_order(kubernetes_cluster, tmp_path):
  path = str(tmp_path / 'closed')
  plan = ordered(path).plan()
  assert 'delete jobset ordered' in kubernetes_cluster.backend().submit(plan)
  with pytest.raises(UsageError, match=r"a JobSet 'ordered' already: .* by job=\.\.\."):
    kubernetes_cluster.backend().submit(plan)
  kubernetes_cluster.wait_for(lambda: len(lives(path)) == 3, 'ordered')
  kubernetes_cluster.delete('ordered')
  assert Path(path).read_text().split() == ['actor', 'learner', 'replay']


def test_nothing_but_a_pod_is_the_launchers_pod():
  program = Program('one')
  program.add('one', Forever, 'one', '')
  with pytest.raises(UsageError, match='this process is no pod of a JobSet'):
    launch(program, Pods({}))


def test_the_command_shows_what_would_be_submitted(capsys):
  where = 'tests.launch.test_kubernetes:consumers'
  flags = ['--backend=kubernetes', '--kubernetes_image=registry/callsheet:1']
  assert launch_program([where, '--dry_run', *flags]) == 0
  jobset, secret = manifests.read(capsys.readouterr().out)
  manifests.validate(jobset)
  manifests.validate_secret(secret)
  assert jobset['metadata']['name'] == 'consumers'
