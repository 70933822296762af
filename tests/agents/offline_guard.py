"""The guard's two states as a dataset, of somebody who acts at random."""

from __future__ import annotations

import jax
import numpy as np
from dm_env import specs

from callsheet.agents.base import Batch
from tests.agents import guard


def compiled(function):
  """Jitted with the least effort: what is small needn't be fast."""
  return jax.jit(function, compiler_options={'xla_backend_optimization_level': 0})


def dataset(spec, count=2000, gamma=0.99, seed=0):
  """Transitions `[count, ...]` of a uniformly random policy."""
  generator = np.random.default_rng(seed)
  state = generator.integers(2, size=count)
  right = np.array(guard._RIGHT[isinstance(spec.action, specs.DiscreteArray)])[state]
  if isinstance(spec.action, specs.DiscreteArray):
    action = generator.integers(2, size=count).astype(np.int32)
    reward = action == right
  else:
    action = generator.uniform(-2, 2, (count, 1)).astype(np.float32)
    reward = 1 - np.abs(action[:, 0] - right)
  states = np.concatenate([np.eye(2), np.zeros((1, 2))]).astype(np.float32)
  return {
    'observation': states[state],
    'action': action,
    'reward': reward.astype(np.float32),
    'discount': np.where(state == 0, gamma, 0).astype(np.float32),
    'next_observation': states[state + 1],
  }


def batches(agent, columns, count, seed=0):
  """So many batches, stacked: `[count, B, ...]`."""
  generator = np.random.default_rng(seed)
  size, shape = len(columns['reward']), (count, agent.samples.batch_size)
  rows = generator.integers(size, size=shape)
  data = {name: column[rows] for name, column in columns.items()}
  probabilities = np.full(shape, 1 / size, np.float32)
  return Batch(data, probabilities, np.full(count, size, np.int32))


def learn(agent, updates=300, seed=0, columns=None):
  """What comes of so many updates, see `guard.Learnt`: all in one scan."""
  columns = dataset(agent.spec, seed=seed) if columns is None else columns
  state = compiled(agent.init)(jax.random.PRNGKey(seed))
  run = compiled(lambda state, stacked: jax.lax.scan(agent.update, state, stacked))
  state, metrics = run(state, batches(agent, columns, updates, seed))
  environment = guard.make_dm_env(lambda seed: guard.TwoStates(agent.spec))(8, seed)
  return guard.Learnt(
    {name: np.asarray(values) for name, values in metrics.items()},
    guard.greedy_return(agent, state, environment),
    state,
  )
