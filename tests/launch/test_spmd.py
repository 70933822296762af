"""Nodes of several processes: they meet, and they live and die together."""

from __future__ import annotations

import functools
import os
import signal
import socket

import pytest

from callsheet import OnFailure, Program
from callsheet.errors import NodeFailed, Unavailable, UsageError
from callsheet.launch import Processes, launch, start
from callsheet.launch.spmd import Meeting, check_own_name
from callsheet.programs import Node, Resources, Spmd
from tests.launch import services, spmd_services
from tests.launch.conftest import wait_for as wait_seconds_for

pytestmark = pytest.mark.timeout(180)
# Each process imports JAX.
wait_for = functools.partial(wait_seconds_for, seconds=60)


@pytest.fixture
def processes(tmp_path):
  return Processes(log_directory=str(tmp_path / 'logs'))


def logs(tmp_path):
  return '\n'.join(path.read_text() for path in (tmp_path / 'logs').iterdir())


def await_notes(running, count):
  tally = running.client('tally')
  wait_for(lambda: running.wait(0.05) or len(tally.notes()) >= count)
  return tally.notes()


@pytest.mark.parametrize('size', [2, 3])
def test_processes_of_one_node_are_one_machine(processes, size):
  with start(spmd_services.members(size), processes) as running:
    notes = await_notes(running, size)
  total = sum(range(size))
  assert sorted(note[:5] for note in notes) == [
    (rank, size, 2 * size, 2, total) for rank in range(size)
  ]
  assert len({note[5] for note in notes}) == size


def test_the_handle_is_the_first_of_them(processes):
  with start(spmd_services.members(2), processes) as running:
    await_notes(running, 2)
    assert running.client('member').where()[0] == 0
    assert running.client('member.1').where()[0] == 1


def test_a_stop_ends_all_in_order(processes, tmp_path):
  with start(spmd_services.members(2), processes, grace=60) as running:
    await_notes(running, 2)
  written = logs(tmp_path)
  assert 'killed' not in written and 'abort' not in written.lower()
  assert written.count('has ended') == 3


def test_a_group_that_finishes_ends_the_program(processes):
  launch(spmd_services.members(2, steps=20), processes)


@pytest.mark.parametrize('rank', [0, 1])
def test_the_loss_of_one_ends_the_program_and_names_it(processes, rank):
  program = spmd_services.members(2, dies=(rank, 5))
  with pytest.raises(NodeFailed) as caught:
    launch(program, processes)
  assert caught.value.node == ['member', 'member.1'][rank]
  assert 'SIGKILL' in caught.value.reason


@pytest.mark.parametrize('rank', [0, 1])
def test_what_one_raises_is_what_is_shown(processes, rank):
  program = spmd_services.members(2, raises=(rank, 5))
  with pytest.raises(NodeFailed, match='on purpose') as caught:
    launch(program, processes)
  assert caught.value.node == ['member', 'member.1'][rank]


@pytest.mark.parametrize('how', ['dies', 'raises'])
@pytest.mark.parametrize('rank', [0, 1])
def test_the_group_is_restarted_as_one(processes, rank, how):
  restart = OnFailure(max_restarts=1, backoff=0.1)
  program = spmd_services.members(2, restart, **{how: (rank, 5)})
  with start(program, processes) as running:
    notes = await_notes(running, 4)
    member = running.client('member')
    wait_for(lambda: running.wait(0.05) or member.sums() > 20)
  assert sorted(note[0] for note in notes) == [0, 0, 1, 1]
  assert len({note[5] for note in notes}) == 4


def test_restarts_are_counted_for_the_group(processes):
  program = spmd_services.members(2, OnFailure(max_restarts=1, backoff=0.1))
  with pytest.raises(NodeFailed) as caught, start(program, processes) as running:
    for life, victim in enumerate(['member', 'member.1']):
      await_notes(running, 2 * life + 2)
      os.kill(running.client(victim).where()[1], signal.SIGKILL)
    running.wait(30)
  assert caught.value.node == 'member.1'


def test_a_stopped_process_of_a_group_does_not_hold_up_the_end(processes):
  with start(spmd_services.members(2), processes, grace=1) as running:
    await_notes(running, 2)
    os.kill(running.client('member.1').where()[1], signal.SIGSTOP)
  assert running.over


def test_a_process_that_does_not_come_is_named():
  meeting = Meeting(Spmd('learner', 0, 3), '127.0.0.1', 0.3)
  with pytest.raises(Unavailable) as caught:
    meeting.come(0)
  assert str(caught.value) == (
    "1 of the 3 processes of 'learner' came together within 0.3 s; see what the logs "
    'of learner.1, learner.2 say'
  )


@pytest.mark.parametrize('found', ['127.0.1.1', None])
def test_a_host_that_the_others_would_not_find(monkeypatch, found):
  def resolve(name):
    if found is None:
      raise socket.gaierror
    return found

  monkeypatch.setattr(socket, 'gethostname', lambda: 'box')
  monkeypatch.setattr(socket, 'gethostbyname', resolve)
  check_own_name('learner', '127.0.0.1')
  with pytest.raises(UsageError) as caught:
    check_own_name('learner', '10.77.0.1')
  leads = f'leads to {found}, which is each host itself' if found else 'leads nowhere'
  assert str(caught.value) == (
    f"the name 'box' of this host {leads}: the other processes of 'learner' would not "
    "reach it; let it lead to the host's address, with a line such as "
    "'10.77.0.1 box' in /etc/hosts"
  )


def test_a_host_that_the_others_find(monkeypatch):
  monkeypatch.setattr(socket, 'gethostbyname', lambda name: '10.77.0.1')
  check_own_name('learner', '10.77.0.1')


def test_threads_refuse_a_node_of_several_processes():
  program = Program('p')
  program.add(Node('learner', resources=Resources(hosts=2)), services.Tally)
  with pytest.raises(UsageError) as caught:
    launch(program, 'threads')
  assert str(caught.value) == (
    "node 'learner' asks for 2 hosts, which are processes of their own, and the "
    "backend 'threads' has one for all; take backend='processes', or "
    'Resources(hosts=1)'
  )
