"""An actor's policy, its own or a server's: the same to the actor."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from callsheet.errors import CallCancelled, ConnectionLost, UsageError
from callsheet.nodes.acting import Acted, LocalPolicy, RemotePolicy
from callsheet.nodes.actor import Actor
from tests.nodes.recurrent import Alone, observed, recurrent_agent
from tests.nodes.small import Source, agent, countdowns

STEPS = ([3, 4], [5, 6], [700, 1])
FIRST = ([True, True], [False, False], [False, True])
GOING, BEGUN = np.array([False, False]), np.array([True, True])


class Server:
  """In a server's place: keeps the calls, and fails in those that it is told to."""

  def __init__(self, *outcomes):
    self._outcomes = list(outcomes)
    self.calls = []

  def act(self, actor, observation, first):
    self.calls.append((actor, observation, first.tolist()))
    error = self._outcomes.pop(0) if self._outcomes else None
    if error is not None:
      raise error
    return Acted(np.array([len(self.calls)]), {'extra': 7}, 0.25)


def test_an_own_policy_keeps_its_carry_and_takes_newer_parameters():
  source, alone = Source(mean=2.0), Alone()
  policy = LocalPolicy(
    recurrent_agent(), source, update_period=1000.0, seed=0, num_environments=2
  )
  assert policy.parameter_age() == float('inf')
  for first, values in zip(FIRST, STEPS, strict=True):
    acted = policy.act(observed(values), np.array(first))
    alone.check(*acted, values, first, mean=2)
  assert 0 <= policy.parameter_age() < 60
  assert source.asked == [-1]


def test_a_server_is_told_who_asks_and_what_came_first():
  server = Server()
  policy = RemotePolicy(server, 5)
  assert policy.parameter_age() == float('inf')
  steps = list(zip((10, 20, 30), FIRST, strict=True))
  assert [policy.act(step, np.array(first)) for step, first in steps] == [
    (np.array([i]), {'extra': 7}) for i in (1, 2, 3)
  ]
  assert server.calls == [(5, step, first) for step, first in steps]
  assert policy.parameter_age() == 0.25


@pytest.mark.parametrize('lost', [ConnectionLost, CallCancelled])
def test_a_call_lost_with_its_server_is_made_once_more_from_a_fresh_carry(lost):
  server = Server(None, lost('gone'), None, None)
  policy = RemotePolicy(server, 5)
  acted = [policy.act(step, GOING)[0].tolist() for step in (10, 20, 30)]
  assert acted == [[1], [3], [4]]
  going, begun = GOING.tolist(), BEGUN.tolist()
  assert server.calls == [
    (5, 10, going),
    (5, 20, going),
    (5, 20, begun),
    (5, 30, going),
  ]


def test_a_server_that_is_lost_twice_is_lost():
  server = Server(ConnectionLost('gone'), ConnectionLost('gone again'))
  with pytest.raises(ConnectionLost, match='gone again'):
    RemotePolicy(server, 5).act(10, BEGUN)
  assert len(server.calls) == 2


def test_what_a_server_raises_is_raised_at_once():
  server = Server(UsageError('too many'))
  with pytest.raises(UsageError, match='too many'):
    RemotePolicy(server, 5).act(10, BEGUN)
  assert len(server.calls) == 1


@pytest.mark.parametrize(
  ('learner', 'inference', 'came'),
  [(None, None, 'neither'), (Source(), Server(), 'both')],
)
def test_an_actor_needs_one_of_the_two(learner, inference, came):
  with pytest.raises(UsageError, match=rf'is given {came}: Actor\(\.\.\., learner'):
    Actor(agent(), countdowns, None, learner, None, None, inference=inference)


def test_an_actor_with_a_server_leaves_jax_alone():
  code = """if True:
    import threading
    import numpy as np
    from callsheet.nodes.acting import Acted
    from callsheet.nodes.actor import Actor
    from callsheet.nodes.counter import Counter
    from tests.nodes.small import Records, agent, countdowns
    from tests.nodes.test_actor import Inserts

    made, stop = agent(), threading.Event()

    class Server:
      calls = 0
      def act(self, actor, observation, first):
        self.calls += 1
        if self.calls == 30:
          stop.set()
        return Acted(np.zeros(len(observation), np.int32), (), 0.0)

    replay = Inserts()
    server = Server()
    actor = Actor(
      made, countdowns, replay, None, Counter(), Records(), inference=server
    )
    actor.run(stop)
    from jax._src import xla_bridge
    print(len(replay.blocks), xla_bridge.backends_are_initialized())
  """
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    timeout=60,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert (done.stdout, done.stderr) == ('1 False\n', '')
