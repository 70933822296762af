"""Nodes that are there and say nothing: stopped, hung, stuck in C; and who waits."""

from __future__ import annotations

import io
import os
import signal

import psutil
import pytest
from rich.console import Console

from callsheet import GraphError, Node, NodeFailed, OnFailure, Program, Silence
from callsheet.launch import Processes, Running, Terminal, Threads, following, start
from callsheet.launch import watch as watching
from callsheet.launch.events import Beat
from callsheet.launch.threads import ThreadCrew
from callsheet.launch.watch import Watch
from tests.launch import services
from tests.launch.conftest import wait_for
from tests.launch.hanging_services import Clinging, Patient, Sleepy, Swamp

RESTART = OnFailure(max_restarts=3, backoff=0.05)


@pytest.fixture(params=['spawned', 'forked'])
def backend(request: pytest.FixtureRequest, tmp_path) -> Processes:
  return Processes(str(tmp_path / 'logs'), fork=request.param == 'forked')


def sleepy(service: type[Sleepy], silence: Silence, hangs: int) -> Program:
  program = Program('sleepy')
  tally = program.add('tally', services.Tally)
  node = Node('node', restart=RESTART, silence=silence)
  program.add(node, service, tally, hangs)
  return program


def lives(running: Running, count: int) -> None:
  client = running.client('tally')
  wait_for(lambda: running.wait(0.02) or client.total() >= count)


def test_stopped_process_is_restarted(backend, tmp_path):
  screen = io.StringIO()
  terminal = Terminal(Console(file=screen, width=300))
  program = sleepy(Sleepy, Silence(process=2.0), 0)
  with start(program, backend, terminal=terminal) as running:
    lives(running, 1)
    pid = running.client('node').pid()
    os.kill(pid, signal.SIGSTOP)
    lives(running, 2)
    assert not psutil.pid_exists(pid)
  said = screen.getvalue()
  assert 'no sign of life for 2 s; its process is stopped' in said
  assert 'restart 1 in' in said


def test_c_code_that_keeps_the_interpreter(backend, tmp_path):
  program = sleepy(Clinging, Silence(process=2.0), 1)
  with start(program, backend) as running:
    lives(running, 2)
  log = (tmp_path / 'logs' / 'node.log').read_text()
  assert 'in run' in log and 'services.py' in log, log


def test_hung_run_has_its_stacks_in_the_log(backend, tmp_path):
  program = sleepy(Sleepy, Silence(run=1.0), 1)
  with start(program, backend) as running:
    lives(running, 2)
    running.dump_stacks('tally')
    log = tmp_path / 'logs' / 'tally.log'
    wait_for(lambda: 'most recent call first' in log.read_text())
  log = (tmp_path / 'logs' / 'node.log').read_text()
  assert 'in run' in log and 'most recent call first' in log


def test_hung_handler():
  program = Program('swamp')
  tally = program.add('tally', services.Tally)
  node = Node('swamp', restart=RESTART, silence=Silence(run=1.0))
  swamp = program.add(node, Swamp, tally)
  program.add('patient', Patient, swamp, tally)
  with start(program, 'processes') as running:
    client = running.client(tally)
    wait_for(lambda: running.wait(0.02) or client.notes() == ['dry'])


@pytest.mark.parametrize('name', ['threads', 'processes'])
def test_who_waits_is_not_hung(name):
  program = Program('waiting')
  mailbox = program.add('mailbox', services.Mailbox)
  tally = program.add('tally', services.Tally)
  node = Node('consumer', silence=Silence(run=0.5))
  program.add(node, services.Consumer, mailbox, tally)
  with start(program, name) as running:
    assert not running.wait(2.0)
    running.client(mailbox).put(7)
    wait_for(lambda: running.wait(0.02) or running.client(tally).notes() == [7])


def test_thread_that_can_not_be_ended(monkeypatch):
  monkeypatch.setattr(following, '_GONE', 1.0)
  program = Program('stuck')
  tally = program.add('tally', services.Tally)
  node = Node('stuck', restart=RESTART, silence=Silence(run=0.5))
  program.add(node, Sleepy, tally, 1, 8.0)
  running = start(program, Threads(), grace=1.0)
  with (
    pytest.raises(NodeFailed, match='can not be ended, a process can') as caught,
    running,
  ):
    running.wait()
  assert caught.value.node == 'stuck'
  assert 'time.sleep(self._seconds)' in caught.value.traceback


@pytest.mark.parametrize('kind', ['stopped', 'hung'])
def test_stops_in_order_around_one_that_does_not_answer(kind, tmp_path):
  path = tmp_path / 'closed'
  learner = services.Deaf if kind == 'hung' else services.Forever
  program = services.ordered(str(path), learner)
  others = {*psutil.Process().children(recursive=True)}  # A cluster's, if there is one.
  with start(program, Processes(str(tmp_path / 'logs')), grace=2.0) as running:
    if kind == 'stopped':
      os.kill(running.client('learner').pid(), signal.SIGSTOP)
    services.wait_until_started(str(path), 5)
    children = {*psutil.Process().children(recursive=True)} - others
  assert path.read_text().split() == ['actor', 'actor', 'replay', 'counter']
  assert len(children) >= 5 and not any(child.is_running() for child in children)


def test_time_counts_only_while_somebody_looks(monkeypatch):
  program = Program('p')
  program.add(Node('n', silence=Silence(process=60.0)), services.Tally)
  clock = [100.0]
  monkeypatch.setattr(watching.time, 'monotonic', lambda: clock[0])
  crew = ThreadCrew(program.plan(), None)
  watch = Watch(program.plan().units(), crew, lambda node, line: None)
  for _ in range(2):
    watch.hear(Beat('n', {}))
  assert watch.look() == []
  clock[0] += 3600.0  # The launcher was stopped, or did something else.
  assert watch.look() == []
  looks = 0
  while not (silent := watch.look()):
    clock[0] += watching.LOOK
    looks += 1
  assert 100 < looks <= 120
  crew.close(failed=False)
  assert silent[0].node == 'n' and 'for 60 s' in silent[0].reason
  assert watch.look() == []


@pytest.mark.parametrize('limit', [0, -1.0, float('inf'), float('nan')])
def test_limits_that_can_not_be(limit):
  with pytest.raises(GraphError, match='run must be seconds above 0'):
    Silence(run=limit)


def test_a_groups_silence_is_its_nodes():
  program = Program('p')
  with program.group('g', silence=Silence(run=5.0)):
    program.add('a', services.Tally)
    program.add(Node('b', silence=Silence(process=None)), services.Tally)
  a, b = program.plan().nodes
  assert a.silence == Silence(30.0, 5.0) and b.silence == Silence(None)
  assert b.silence.shortest() is None
