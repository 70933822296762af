"""Rollouts that an agent has played itself, through the replay that it declares."""

from __future__ import annotations

import dm_env
import jax
import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.nodes.actor import make_writer
from callsheet.nodes.environments import make_dm_env
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.playing import jit_acting

OBSERVATION = specs.Array((3,), np.float32)
DISCRETE = EnvironmentSpec(OBSERVATION, specs.DiscreteArray(3, np.int32))
CONTINUOUS = EnvironmentSpec(
  OBSERVATION, specs.BoundedArray((2,), np.float32, (-1, 0), (3, 0.5))
)


class Noise(dm_env.Environment):
  """Shows noise; its episodes have 3 and 5 steps in turn, and only the first kind ends
  in a state that is worth nothing.
  """

  def __init__(self, spec, seed):
    self._spec, self._generator = spec, np.random.default_rng(seed)
    self._left, self._long = 0, bool(seed % 2)

  def reset(self):
    self._long = not self._long
    self._left = 5 if self._long else 3
    return dm_env.restart(self._show())

  def step(self, action):
    if self._left == 0:
      return self.reset()
    self._left -= 1
    reward = float(self._generator.normal())
    if self._left:
      return dm_env.transition(reward, self._show())
    ended = dm_env.truncation if self._long else dm_env.termination
    return ended(reward, self._show())

  def _show(self):
    return self._generator.normal(size=3).astype(np.float32)

  def observation_spec(self):
    return self._spec.observation

  def action_spec(self):
    return self._spec.action


def play(agent, params, *, num_batches=1, seed=0):
  """So many batches, in order, played by `params` alone.

  Each of the B environments gives its rollout to each of them.
  """
  size = agent.samples.batch_size
  environment = make_dm_env(lambda seed: Noise(agent.spec, seed))(size, seed)
  replay, writer = NativeReplay(agent.tables), make_writer(agent)
  act, key = jit_acting(agent), jax.random.PRNGKey(seed)
  carry, time_step = agent.initial_carry(size), environment.reset()
  table, batches = agent.samples.table, []
  for index in range(num_batches):
    for _ in range(agent.writes.sequence_length):
      before, first = time_step, time_step.step_type == dm_env.StepType.FIRST
      action, carry, key, extras = act(params, carry, before.observation, first, key)
      time_step = environment.step(np.asarray(action))
      writer.observe(before, np.asarray(action), time_step, extras)
    replay.append(table, 'actor', writer.take(), fresh=index == 0, timeout=10.0)
    sample = replay.sample(table, size, timeout=10.0)
    batches.append(jax.tree.map(lambda leaf: leaf[0], sample.batch))
  replay.close()
  return batches


def moved(params):
  """Parameters far from where they began, where all actions are about as likely."""
  return jax.tree.map(
    lambda leaf: (
      leaf + 0.3 * np.sin(np.arange(leaf.size, dtype='f4')).reshape(leaf.shape)
    ),
    params,
  )
