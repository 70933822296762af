"""A JobSet, submitted and run to its end with a network namespace for each pod."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from callsheet import Node, OnFailure, Program
from callsheet.commands.launch_program import launch_program
from callsheet.errors import UsageError
from callsheet.launch import launch
from callsheet.launch.pods import Pods
from tests.launch import manifests, services
from tests.launch.cluster import Cluster
from tests.launch.conftest import wait_for
from tests.launch.services import Forever, Mailbox, Phoenix, Tally, Watcher

pytestmark = pytest.mark.timeout(240)


class Files:
  """Notes what its pod was given."""

  def __init__(self, tally: Tally) -> None:
    self._tally = tally

  def run(self) -> None:
    folder = Path('/run/callsheet')
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    self._tally.note((os.uname().nodename, modes))


class Reader:
  """Writes down what the others have noted; that is the end."""

  def __init__(self, tally: Tally, count: int, path: str) -> None:
    self._watcher, self._tally = Watcher(tally, count), tally
    self._path = path

  def run(self, stop: object) -> None:
    self._watcher.run(stop)
    Path(self._path).write_text('\n'.join(map(repr, self._tally.notes())))


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


def run(cluster: Cluster, program: Program, **options: object) -> str:
  """How a program's JobSet ends, which is deleted then."""
  plan = program.plan()
  backend = cluster.backend(job=plan.name, **options)
  assert backend.submit(plan).startswith(f'jobset {plan.name}\n')
  wait_for(lambda: cluster.status(plan.name) != '', lambda: cluster.logs(plan.name), 90)
  status = cluster.status(plan.name)
  cluster.delete(plan.name)
  return status


def test_to_the_success_of_the_jobset(cluster):
  assert run(cluster, consumers()) == 'Completed'


@pytest.mark.parametrize('kill', [False, True])
def test_a_node_that_crashes_is_started_again(cluster, tmp_path, kill):
  program = Program(f'phoenix-{kill}'.lower())
  tally = program.add('tally', Tally)
  node = Node('phoenix', restart=OnFailure(max_restarts=2, backoff=0.05))
  program.add(node, Phoenix, tally, 1, kill)
  program.add('done', services.Produce, tally, 2)
  program.add(Node('end', ends_program=True), Watcher, tally, 1)
  assert run(cluster, program) == 'Completed'


def test_to_its_failure(cluster):
  program = consumers()
  program.name = 'failing'
  program.add('bad', services.BadRun)
  assert run(cluster, program) == 'Failed: launcher'
  log = cluster.log('failing-launcher-0-0')
  assert "node 'bad' failed: tests.launch.services.Oops: no run" in log
  assert 'kubectl logs' in log.replace(cluster.command, 'kubectl')


def test_a_process_that_is_lost_and_may_not_be_restarted(cluster, tmp_path):
  assert run(cluster, services.killed()) == 'Failed: victim'


def test_a_launcher_that_is_lost_starts_the_program_anew(cluster, tmp_path):
  program = Program('anew')
  program.add('once', services.Once, str(tmp_path / 'before'))
  program.add(Node('end', ends_program=True), services.Exists, str(tmp_path / 'before'))
  assert run(cluster, program, restarts=1) == 'Completed'


def test_what_pods_are_given(cluster, tmp_path):
  program = Program('files')
  tally = program.add('tally', Tally)
  with program.group('reader'):
    program.add('reader', Files, tally)
    program.add('reader', Files, tally)
  path = str(tmp_path / 'notes')
  program.add(Node('end', ends_program=True), Reader, tally, 2, path)
  assert run(cluster, program) == 'Completed'
  assert sorted((tmp_path / 'notes').read_text().split('\n')) == [
    "('files-reader-0-0', {'ticket.json': 256})",
    "('files-reader-0-1', {'ticket.json': 256})",
  ]


def test_a_jobset_that_is_deleted_stops_in_order(cluster, tmp_path):
  path = tmp_path / 'closed'
  program = services.ordered(str(path))
  text = cluster.backend().submit(program.plan())
  assert 'delete jobset ordered' in text
  with pytest.raises(UsageError, match=r"a JobSet 'ordered' already: .* by job=\.\.\."):
    cluster.backend().submit(program.plan())
  wait_for(lambda: 'nobody' in cluster.log('ordered-launcher-0-0'), lambda: '', 90)
  cluster.delete('ordered')
  closed = path.read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']


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
