"""What the ssh backend has of its own: hosts by turns, and clear refusals."""

from __future__ import annotations

import gc
import queue
import sys

import pytest

from callsheet import Node, OnFailure, Program, Resources
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Ssh, launch, start
from callsheet.launch.remote.commands import Commands
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.ticket import Ticket, carried_path
from tests.launch import services
from tests.launch.conftest import wait_for
from tests.launch.main import here


def test_dry_run_shows_each_command():
  program = services.beating('a', 'b')
  shown = Ssh(('b', 'a'), ('ssh', '{host}', '{command}'), 'python').dry_run(
    program.plan()
  )
  path = ':'.join(carried_path())
  worker = (
    f'PYTHONPATH={path} PYTHONUNBUFFERED=1 python -m callsheet.launch.remote.worker'
  )
  assert shown.splitlines() == [
    f"tally: ssh a 'env {worker}'",
    f"heart/a: ssh a 'env {worker}'",
    f"heart/b: ssh b 'env {worker}'",
  ]


def test_units_go_to_the_hosts_by_turns():
  program = services.beating('x', 'y', 'z', pinned=False)
  shown = Ssh(('a', 'b'), ('ssh', '{host}')).dry_run(program.plan())
  assert [line.split()[2] for line in shown.splitlines()] == ['a', 'b', 'a', 'b']


def test_the_interpreters_own_folders_stay_here():
  assert not any(entry.startswith(sys.prefix) for entry in carried_path())


@pytest.mark.parametrize(
  ('backend', 'complaint'),
  [
    (Ssh(), 'no hosts'),
    (Ssh(('a', 'b')), "wants host 'c'; there are a, b"),
    (Ssh(('c',), ('no-such-command',)), "no 'no-such-command' on this machine"),
    (Ssh(('c',), ('sh',), log_directory='/dev/null/logs'), 'can not be made'),
    (Ssh(('c',), ('sh',)), "host 'c' can not be reached"),
  ],
)
def test_refusals(backend, complaint):
  program = Program('refused')
  program.add(
    Node('greeter', resources=Resources(node_selector={'host': 'c'})), services.Greeter
  )
  if 'logs' in (backend.log_directory or ''):
    backend = Ssh(('c',), ('sh',), address='127.0.0.1', log_directory='/dev/null/logs')
  with pytest.raises(UsageError, match=complaint):
    launch(program, backend)


def test_a_host_that_ssh_does_not_reach(tmp_path):
  command = ('sh', '-c', 'echo no route to {host}; exit 255')
  program = Program('unreachable')
  program.add('greeter', services.Greeter)
  backend = Ssh(('c',), command, address='127.0.0.1', log_directory=str(tmp_path))
  with pytest.raises(NodeFailed, match='host c could not be reached: no route to c'):
    launch(program, backend)


def test_a_unit_leaves_a_host_that_can_not_be_reached(tmp_path):
  command = ('sh', '-c', 'test {host} = good || exit 255; exec {command}')
  program = Program('moving')
  node = Node('greeter', restart=OnFailure(max_restarts=2, backoff=0.1))
  greeter = program.add(node, services.Greeter)
  backend = Ssh(
    ('bad', 'good'), command, address='127.0.0.1', log_directory=str(tmp_path)
  )
  with start(program, backend) as running:
    client = running.client(greeter)
    running.wait(1.0)
    assert client.greet('you') == 'hello you'


def test_killed_worker_is_restarted(tmp_path):
  program = Program('phoenix')
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  tally = program.add('tally', services.Tally)
  node = Node('phoenix', restart=OnFailure(max_restarts=3, backoff=0.05))
  program.add(node, services.Phoenix, tally, 2, True)
  with start(program, here(str(tmp_path / 'logs'))) as running:
    client = running.client(tally)
    wait_for(lambda: running.wait(0.02) or client.total() == 3)


def test_output_goes_to_the_log(tmp_path):
  program = Program('noisy')
  program.add('bad', services.BadRun)
  with pytest.raises(NodeFailed) as caught:
    launch(program, here(str(tmp_path)))
  assert caught.value.log == str(tmp_path / 'bad.log')
  assert 'about to fail\n' in (tmp_path / 'bad.log').read_text()


def test_a_ticket_that_was_not_read_is_given_up(tmp_path, monkeypatch):
  deaf = tmp_path / 'deaf'

  class Late(Ticket):
    def dumps(self) -> str:
      wait_for(deaf.exists)
      return super().dumps()

  said: list[object] = []
  monkeypatch.setattr(sys, 'unraisablehook', said.append)
  ended: queue.Queue[str] = queue.Queue()
  commands = Commands(Logs(str(tmp_path / 'logs'), 'p', lambda unit, line: None))
  command = ('sh', '-c', f'exec <&-; touch {deaf}; exit 3')
  for life in (1, 2):
    commands.start('one', command, Late('tcp:h:1', 'ab', 'one', life), ended.put)
    assert ended.get(timeout=60) == 'its process exited with code 3'
    deaf.unlink()
  commands.close()
  gc.collect()
  assert not said
