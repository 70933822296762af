"""R2D2 solves the two states, and a problem that takes a memory."""

from __future__ import annotations

import dataclasses

import dm_env
import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.r2d2 import R2D2Config, r2d2
from callsheet.nodes.environments import make_dm_env
from tests.agents import guard

SMALL = R2D2Config(
  hidden_sizes=(16, 16),
  lstm_size=16,
  batch_size=16,
  min_replay_size=32,
  max_replay_size=1000,
  n_step=1,
  learning_rate=5e-3,
  target_update_period=10,
  epsilon=0.5,
)
DELAY = 3


class Recall(dm_env.Environment):
  """Shows a cue, then nothing for some steps; in the end the cue's action earns 1.

  The cues are those of every other episode, and of every other environment.
  """

  made = 0

  def __init__(self, spec):
    self._spec, self._time, self._cue = spec, 0, Recall.made % 2
    Recall.made += 1

  def reset(self):
    self._time, self._cue = 0, 1 - self._cue
    return dm_env.restart(self._show())

  def step(self, action):
    if self._time is None:
      return self.reset()
    self._time += 1
    if self._time <= DELAY:
      return dm_env.transition(0.0, self._show())
    self._time = None
    reward = float(action == self._cue)
    return dm_env.termination(reward, np.zeros(3, np.float32))

  def _show(self):
    cue = np.eye(2)[self._cue] if self._time == 0 else np.zeros(2)
    return np.array([*cue, self._time / DELAY], np.float32)

  def observation_spec(self):
    return self._spec.observation

  def action_spec(self):
    return self._spec.action


def test_it_solves_two_states():
  config = dataclasses.replace(SMALL, burn_in_length=1, unroll_length=2, period=1)
  learnt = guard.learn(r2d2(guard.DISCRETE, config))
  assert learnt.falls()
  assert learnt.greedy_return == guard.BEST


def test_it_remembers():
  spec = EnvironmentSpec(specs.Array((3,), np.float32), guard.DISCRETE.action)
  config = dataclasses.replace(
    SMALL, burn_in_length=2, unroll_length=3, period=2, n_step=3
  )
  agent = r2d2(spec, config)
  learnt = guard.learn(agent, updates=300, problem=Recall)
  assert learnt.greedy_return == 1.0

  def forgetful(params, memory, observation, key):
    return agent.evaluation_policy(
      params, agent.initial_carry(len(observation)), observation, key
    )

  # The same values without the memory: one action for both cues, right for half.
  blind = dataclasses.replace(agent, evaluation_policy=forgetful)
  environment = make_dm_env(lambda seed: Recall(spec))(8, 0)
  assert guard.greedy_return(blind, learnt.state, environment) == 0.5
