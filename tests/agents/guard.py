"""A guard against regressions: every agent solves a tiny problem in a few updates.

An episode shows two states, one after the other. In each another action is right: of
discrete ones it earns 1, of continuous ones the nearer the better, 1 at most. So the
best return is 2. All happens in this thread, and with the same seed it happens again.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import NamedTuple

import dm_env
import jax
import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, Limiter
from callsheet.errors import ReplayTimeout
from callsheet.nodes.actor import make_writer
from callsheet.nodes.environments import make_dm_env
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.playing import jit_acting, jit_policy, play_episodes
from callsheet.nodes.writing import NStepWriter

OBSERVATION = specs.Array((2,), np.float32)
DISCRETE = EnvironmentSpec(OBSERVATION, specs.DiscreteArray(2, np.int32))
CONTINUOUS = EnvironmentSpec(OBSERVATION, specs.BoundedArray((1,), np.float32, -2, 2))
BEST = 2.0
_RIGHT = {True: (1, 0), False: (1.0, -0.5)}


class TwoStates(dm_env.Environment):
  """The problem, with the one spec or the other."""

  def __init__(self, spec):
    self._spec, self._state = spec, None
    self._discrete = isinstance(spec.action, specs.DiscreteArray)

  def reset(self):
    self._state = 0
    return dm_env.restart(self._show())

  def step(self, action):
    if self._state is None:
      return self.reset()
    right = _RIGHT[self._discrete][self._state]
    if self._discrete:
      reward = float(action == right)
    else:
      reward = 1 - abs(float(action[0]) - right)
    if self._state == 0:
      self._state = 1
      return dm_env.transition(reward, self._show())
    self._state = None
    return dm_env.termination(reward, np.zeros(2, np.float32))

  def _show(self):
    return np.eye(2, dtype=np.float32)[self._state]

  def observation_spec(self):
    return self._spec.observation

  def action_spec(self):
    return self._spec.action


class Learnt(NamedTuple):
  """What came of it.

  Attributes:
    metrics: of each update, by name.
    greedy_return: the mean return of the evaluation policy in the end.
    state: the learner's.
  """

  metrics: dict[str, np.ndarray]
  greedy_return: float
  state: object

  def falls(self, name='loss'):
    """Whether a metric's mean of the last tenth is below that of the first."""
    values = self.metrics[name]
    tenth = len(values) // 10
    return float(np.mean(values[-tenth:])) < float(np.mean(values[:tenth]))


def learn(
  agent, *, updates=200, seed=0, num_environments=8, block_length=4, problem=TwoStates
):
  """Plays and updates in turn.

  Args:
    agent: made for `DISCRETE` or `CONTINUOUS`, with a small `min_replay_size`.
    updates: so many; as many blocks are played, and those before the first.
    seed: of everything that is random.
    num_environments: B.
    block_length: T of a block, the experience between two updates.
    problem: `spec -> dm_env.Environment`.
  """
  make_environment = make_dm_env(lambda seed: problem(agent.spec))
  environment = make_environment(num_environments, seed)
  replay = NativeReplay([_unlimited(table) for table in agent.tables], seed=seed)
  state, key = jax.jit(agent.init)(jax.random.PRNGKey(seed)), jax.random.PRNGKey(~seed)
  act, update, writer = jit_acting(agent), jax.jit(agent.update), make_writer(agent)
  carry = agent.initial_carry(num_environments)
  table, fresh = agent.writes.table, True
  time_step, metrics = environment.reset(), []
  while len(metrics) < updates:
    for _ in range(block_length):
      before, first = time_step, time_step.step_type == dm_env.StepType.FIRST
      action, carry, key, extras = act(
        agent.parameters(state), carry, before.observation, first, key
      )
      time_step = environment.step(np.asarray(action))
      if isinstance(writer, NStepWriter):
        writer.observe(before, np.asarray(action), time_step)
      else:
        writer.observe(before, np.asarray(action), time_step, extras)
    if (columns := writer.take()) is None:
      continue
    if isinstance(writer, NStepWriter):
      replay.insert(table, columns, timeout=10.0)
    else:
      replay.append(table, 'actor', columns, fresh=fresh, timeout=10.0)
      fresh = False
    samples = agent.samples
    if replay.statistics()[samples.table].size < max(1, _needed(agent)):
      continue
    try:
      sample = replay.sample(samples.table, samples.batch_size, timeout=0.0)
    except ReplayTimeout as error:
      raise AssertionError(f'the guard drew too early: {error}') from error
    state, newest = update(state, jax.tree.map(lambda leaf: leaf[0], sample.batch))
    metrics.append(newest)
    if 'priorities' in newest:
      priorities = np.asarray(newest['priorities'])
      replay.update_priorities(samples.table, sample.keys[0], priorities)
  names = [name for name in metrics[0] if name != 'priorities']
  return Learnt(
    {name: np.array([each[name] for each in metrics]) for name in names},
    greedy_return(agent, state, make_environment(num_environments, seed)),
    state,
  )


def _unlimited(table):
  """One that holds nobody back, unless it hands over each item once."""
  if table.max_times_sampled:
    return table
  return dataclasses.replace(table, limiter=Limiter(table.limiter.min_size))


def _needed(agent):
  [table] = [each for each in agent.tables if each.name == agent.samples.table]
  limit = agent.samples.batch_size if table.max_times_sampled else 1
  return max(table.limiter.min_size, limit)


def greedy_return(agent, state, environment):
  """The mean return of the evaluation policy, of an episode in each environment."""
  returns = play_episodes(
    jit_policy(agent.evaluation_policy),
    agent.parameters(state),
    agent.initial_carry(environment.num_environments),
    environment,
    jax.random.PRNGKey(0),
    threading.Event(),
  )
  return float(np.mean(returns))
