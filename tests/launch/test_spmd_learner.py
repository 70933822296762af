"""A learner of two processes in a running program, and what becomes of it."""

from __future__ import annotations

import functools
import os
import signal

import psutil
import pytest

from callsheet import OnFailure
from callsheet.errors import NodeFailed
from callsheet.launch import Processes, start
from tests.launch.conftest import wait_for as wait_seconds_for
from tests.launch.learning import learning

pytestmark = pytest.mark.timeout(180)
# Each process imports JAX, and compiles.
wait_for = functools.partial(wait_seconds_for, seconds=60)

NAMES = ['learner', 'learner.1']


def await_steps(running, steps):
  counter = running.client('counter')
  wait_for(
    lambda: running.wait(0.02) or counter.counts().get('learner_steps', 0) >= steps
  )


def process_of(tmp_path, node):
  """The number of the node's newest process, which its log begins with."""
  lines = (tmp_path / 'logs' / f'{node}.log').read_text().splitlines()
  started = [line.split() for line in lines if line.endswith(' starts')]
  return int(started[-1][-2])


@pytest.fixture
def processes(tmp_path):
  return Processes(log_directory=str(tmp_path / 'logs'))


def test_both_learn_and_give_the_same_parameters(processes):
  with start(learning(devices=2), processes) as running:
    await_steps(running, 50)
    learners = [running.client(name) for name in NAMES]
    wait_for(
      lambda: running.wait(0.02) or all(one.parameters().version for one in learners)
    )
    means = [float(one.parameters().params['mean']) for one in learners]
  assert means == pytest.approx([1.0, 1.0], abs=0.2)


@pytest.mark.parametrize('victim', [0, 1])
def test_the_death_of_one_ends_the_program(processes, tmp_path, victim):
  with pytest.raises(NodeFailed) as caught, start(learning(), processes) as running:
    await_steps(running, 10)
    others = [process_of(tmp_path, name) for name in NAMES]
    os.kill(process_of(tmp_path, NAMES[victim]), signal.SIGKILL)
    running.wait(60)
  assert caught.value.node == NAMES[victim], str(caught.value)
  assert 'SIGKILL' in caught.value.reason
  assert not any(psutil.pid_exists(number) for number in others)


@pytest.mark.parametrize('victim', [0, 1])
def test_after_the_death_of_one_both_are_restarted_and_learn(
  processes, tmp_path, victim
):
  restart = OnFailure(max_restarts=1, backoff=0.1)
  with start(learning(restart), processes) as running:
    await_steps(running, 10)
    first = [process_of(tmp_path, name) for name in NAMES]
    os.kill(first[victim], signal.SIGKILL)
    wait_for(
      lambda: (
        running.wait(0.02)
        or not {process_of(tmp_path, name) for name in NAMES} & set(first)
      )
    )
    counted = running.client('counter').counts()['learner_steps']
    await_steps(running, counted + 100)
    assert running.client('learner.1').parameters().version >= 0


@pytest.mark.parametrize('limit', [0, 42])
def test_a_stop_while_they_wait_for_samples_ends_in_order(processes, tmp_path, limit):
  # Of 21 samples one process gets a last one that the other waits for in vain.
  with start(learning(limit=limit), processes, grace=60) as running:
    replay = running.client('replay')
    wait_for(lambda: running.wait(0.02) or replay.waiting() >= 1)
    running.wait(2.0)  # By then one may have voted, and votes again.
  logs = [(tmp_path / 'logs' / f'{name}.log').read_text() for name in NAMES]
  assert all('has ended' in log for log in logs)
  assert not any('Error' in log or 'killed' in log for log in logs)
