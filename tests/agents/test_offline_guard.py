"""From random behaviour in two states they learn the best; BC clones it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from callsheet.agents import registry
from tests.agents import guard, offline_guard

SMALL = {'hidden_sizes': (32, 32), 'batch_size': 64, 'learning_rate': 5e-3}
FAST = {**SMALL, 'target_rate': 0.05}
OPTIONS = {
  'cql': {**FAST, 'penalty': 0.1},
  'crr': {**FAST, 'temperature': 0.1},
  'iql': {**FAST, 'expectile': 0.9, 'temperature': 10.0},
  'td3_bc': FAST,
}


def make(name, spec, **options):
  entry = registry.find(name)
  return entry.make(spec, entry.config(**{**OPTIONS.get(name, SMALL), **options}))


@pytest.mark.parametrize('name', ['cql', 'crr', 'iql'])
def test_of_discrete_actions_it_finds_the_best(name):
  learnt = offline_guard.learn(make(name, guard.DISCRETE))
  assert learnt.falls()
  assert learnt.greedy_return == guard.BEST


@pytest.mark.parametrize('name', ['cql', 'crr', 'iql', 'td3_bc'])
def test_of_continuous_actions_it_finds_the_best(name):
  learnt = offline_guard.learn(make(name, guard.CONTINUOUS))
  assert learnt.falls()
  # The behaviour's mean return is 0.44; a sum of errors of 0.25 in actions is allowed.
  assert learnt.greedy_return > guard.BEST - 0.25


def test_bc_clones_discrete_behaviour():
  # In the first state the wrong action, 3 times of 4; in the second the right one.
  columns = offline_guard.dataset(guard.DISCRETE)
  first = columns['observation'][:, 0] == 1
  columns['action'][first] = np.arange(first.sum()) % 4 == 0
  columns['action'][~first] = 0
  agent = make('bc', guard.DISCRETE)
  learnt = offline_guard.learn(agent, columns=columns)
  assert learnt.falls()
  assert learnt.greedy_return == 1.0
  states = np.repeat(np.eye(2, dtype=np.float32), 1000, axis=0)
  params = agent.parameters(learnt.state)
  action, _, _ = offline_guard.compiled(agent.policy)(
    params, (), states, jax.random.PRNGKey(0)
  )
  shares = np.asarray(action).reshape(2, 1000).mean(axis=1)
  # 0.25 and 0, with five deviations of a thousand draws and what is still to learn.
  np.testing.assert_allclose(shares, [0.25, 0], atol=0.1)


def test_bc_clones_continuous_behaviour():
  columns = offline_guard.dataset(guard.CONTINUOUS)
  first = columns['observation'][:, :1] == 1
  noise = 0.2 * np.random.default_rng(0).normal(size=columns['action'].shape)
  columns['action'] = (np.where(first, -1.0, 1.5) + noise).astype(np.float32)
  agent = make('bc', guard.CONTINUOUS)
  learnt = offline_guard.learn(agent, updates=1000, columns=columns)
  assert learnt.falls()
  states = np.repeat(np.eye(2, dtype=np.float32), 1000, axis=0)
  params, key = agent.parameters(learnt.state), jax.random.PRNGKey(0)
  action, _, _ = agent.evaluation_policy(params, (), states[::1000], key)
  np.testing.assert_allclose(action, [[-1.0], [1.5]], atol=0.1)
  drawn, _, _ = offline_guard.compiled(agent.policy)(params, (), states, key)
  spread = np.asarray(drawn).reshape(2, 1000).std(axis=1)
  np.testing.assert_allclose(spread, 0.2, atol=0.06)
