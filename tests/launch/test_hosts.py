"""Programs across hosts that vanish, are cut off, lose packets and are slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callsheet import Node, Program, Resources
from callsheet.errors import NodeFailed
from callsheet.launch import Running, Ssh, launch, start
from tests.launch import services
from tests.launch.hosts import Hosts, hosts

pytestmark = [pytest.mark.timeout(240), pytest.mark.clusters]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def three(nothing_left: None) -> Iterator[Hosts]:
  with hosts(3) as made:
    yield made


def backend(made: Hosts, tmp_path: Path, **options: object) -> Ssh:
  logs = str(tmp_path / 'logs')
  chosen = {'hosts': made.names, 'silence': 8.0, **options}
  return Ssh(command=made.command, address=made.address, log_directory=logs, **chosen)


def until(condition: Callable[[], bool], running: Running, seconds: float = 40) -> None:
  """Follows the program until the condition holds."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'timed out'
    running.wait(0.05)


def beats(running: Running, host: str) -> int:
  return sum(1 for note in running.client('tally').notes() if note == host)


def more_beats(running: Running, host: str) -> Callable[[], bool]:
  now = beats(running, host)
  return lambda: beats(running, host) > now + 3


def test_a_program_across_hosts(three, tmp_path):
  with start(services.beating(*three.names), backend(three, tmp_path)) as running:
    for host in three.names:
      until(more_beats(running, host), running)
      assert three.pids(host), 'nothing runs on this host'
  assert not any(map(three.pids, three.names)), 'a worker was left on a host'


def test_nodes_listen_on_their_hosts_own_address(three, tmp_path):
  with start(services.beating(*three.names), backend(three, tmp_path)) as running:
    until(more_beats(running, three.names[2]), running)
    address = running._crew.book.directory.address_of(f'heart/{three.names[2]}')
  assert address.startswith(f'tcp:{three.addresses[2]}:')


def test_a_host_that_vanishes_ends_the_program(three, tmp_path):
  victim = three.names[1]
  running = start(services.beating(*three.names), backend(three, tmp_path))
  with pytest.raises(NodeFailed) as caught, running:
    until(more_beats(running, victim), running)
    three.vanish(victim)
    running.wait(60)
  assert caught.value.node == f'heart/{victim}'


def test_a_node_that_was_cut_off_goes_on_elsewhere(three, tmp_path):
  program = services.beating(*three.names, restart=True, pinned=False)
  # By turns: the tally and the last heart are on the first host.
  victim = three.names[1]
  with start(program, backend(three, tmp_path)) as running:
    until(more_beats(running, three.names[0]), running)
    assert len(three.pids(victim)) == 1
    three.cut(victim)
    until(more_beats(running, three.names[0]), running, 60)
    assert len(three.pids(three.names[2])) == 2
    until(lambda: not three.pids(victim), running)


def test_a_link_that_is_cut_for_twenty_seconds(three, tmp_path):
  away, other = three.names[1:]
  program = services.beating(*three.names)
  with start(program, backend(three, tmp_path, silence=45.0)) as running:
    until(more_beats(running, away), running)
    worker = three.pids(away)
    three.cut(away)
    running.wait(20)
    until(more_beats(running, other), running, 5)
    back = more_beats(running, away)
    three.mend(away)
    until(back, running)
    assert three.pids(away) == worker


def test_a_node_that_was_cut_off_for_too_long_is_replaced(three, tmp_path):
  away = three.names[1]
  program = services.beating(*three.names, restart=True)
  with start(program, backend(three, tmp_path)) as running:
    until(more_beats(running, away), running)
    before = three.pids(away)
    three.cut(away)
    until(lambda: bool(three.pids(away)) and three.pids(away) != before, running, 60)
    three.mend(away)
    assert not set(before) & set(three.pids(away)), 'the old life goes on, too'
    until(more_beats(running, away), running)


@pytest.mark.parametrize('fault', ['loss', 'throttle'])
def test_a_bad_link(three, tmp_path, fault):
  first, second, third = three.names
  if fault == 'loss':
    three.lose(second, 20)
  else:
    three.throttle(second, '20mbit')

  def on(host: str, name: str) -> Node:
    return Node(name, resources=Resources(node_selector={'host': host}))

  program = Program('bad-link')
  tally = program.add(on(first, 'tally'), services.Tally)
  echo = program.add(on(second, 'echo'), services.Echo)
  program.add(on(third, 'sender'), services.Sender, echo, tally, 2**19)
  program.add(on(third, 'heart'), services.Heart, tally, 'heart')
  options = {'silence': 45.0}
  with start(program, backend(three, tmp_path, **options)) as running:
    until(lambda: True in running.client('tally').notes(), running, 90)


@pytest.mark.parametrize('how', ['killed', 'cut off'])
def test_a_launcher_that_is_gone_leaves_nothing_on_any_host(three, tmp_path, how):
  launcher, *others = three.names
  command = ['ip', 'netns', 'exec', launcher, sys.executable, '-m', 'tests.launch.main']
  spec = ','.join([three.addresses[0], *others])
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  process = subprocess.Popen(
    [*command, str(tmp_path / 'logs'), spec, 'beating', *others],
    cwd=ROOT,
    env=environment,
    stderr=subprocess.DEVNULL,
  )
  try:
    _wait(lambda: all(map(three.pids, others)))
    time.sleep(2)
    if how == 'killed':
      os.kill(three.pids(launcher)[0], signal.SIGKILL)
    else:
      three.cut(launcher)
    _wait(lambda: not any(map(three.pids, others)))
  finally:
    process.kill()
    process.wait()


def _wait(condition: Callable[[], bool]) -> None:
  end = time.monotonic() + 40
  while not condition():
    assert time.monotonic() < end, 'timed out'
    time.sleep(0.05)


def test_an_interpreter_that_lacks_the_package(three, tmp_path):
  bare = tmp_path / 'bare'
  bare.write_text('#!/bin/sh\necho No module named callsheet; exit 1\n')
  bare.chmod(0o755)
  chosen = backend(three, tmp_path, python=str(bare))
  with pytest.raises(NodeFailed, match='code 1, saying: No module named callsheet'):
    launch(services.beating(*three.names), chosen)


def test_a_host_from_which_the_launcher_is_not_reached(three, tmp_path):
  three.cut(three.names[1])
  chosen = backend(three, tmp_path, arrival=5.0)
  with pytest.raises(NodeFailed, match='has not signed on within 5 s'):
    launch(services.beating(*three.names), chosen)
