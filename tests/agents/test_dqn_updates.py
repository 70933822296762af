"""DQN's updates: one after the other, and what becomes of their state."""

from __future__ import annotations

import dataclasses

import cloudpickle
import jax
import numpy as np
import pytest

from callsheet.agents.dqn import dqn
from tests.agents.small_dqn import SMALL, SPEC, random_batch


def stack(batches):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def test_the_target_network_is_copied_once_a_period():
  agent = dqn(SPEC, dataclasses.replace(SMALL, target_update_period=3))
  update = jax.jit(agent.update)
  state = agent.init(jax.random.PRNGKey(0))
  same = []
  for i in range(7):
    before = state.target_params
    state, _ = update(state, random_batch(i))
    kept = jax.tree.all(jax.tree.map(np.array_equal, before, state.target_params))
    copied = jax.tree.all(
      jax.tree.map(np.array_equal, state.params, state.target_params)
    )
    same.append((kept, copied))
  assert same == [(i not in (3, 6), i in (3, 6)) for i in range(1, 8)]
  assert state.steps == 7


@pytest.mark.parametrize('prioritized', [True, False])
def test_a_scan_is_one_update_after_the_other(prioritized):
  config = dataclasses.replace(SMALL, prioritized=prioritized, target_update_period=2)
  agent = dqn(SPEC, config)
  batches = [random_batch(i) for i in range(5)]
  single = agent.init(jax.random.PRNGKey(0))
  update, metrics = jax.jit(agent.update), []
  for batch in batches:
    single, one = update(single, batch)
    metrics.append(one)
  scanned, together = jax.jit(
    lambda state, stacked: jax.lax.scan(agent.update, state, stacked)
  )(agent.init(jax.random.PRNGKey(0)), stack(batches))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    (single, stack(metrics)),
    (scanned, together),
  )
  if prioritized:
    assert together['priorities'].shape == (5, 4)
  assert together['loss'].shape == (5,)


@pytest.mark.parametrize('transform', [jax.jit, lambda f: f], ids=['jit', 'plain'])
def test_a_fresh_state_can_be_donated(transform):
  agent = dqn(SPEC, SMALL)
  state = transform(agent.init)(jax.random.PRNGKey(0))
  update = jax.jit(agent.update, donate_argnums=0)
  for _ in range(2):
    state, metrics = update(state, random_batch())
  assert np.isfinite(metrics['loss'])


def test_it_survives_cloudpickle():
  agent = dqn(SPEC, SMALL)
  again = cloudpickle.loads(cloudpickle.dumps(agent))
  key, batch = jax.random.PRNGKey(0), random_batch()
  results = []
  for one in (agent, again):
    state, metrics = one.update(one.init(key), batch)
    observation = batch.data['observation']
    acted = one.policy(one.parameters(state), one.initial_carry(4), observation, key)
    results.append((state, metrics, acted))
  jax.tree.map(np.testing.assert_array_equal, *results)
  assert again.tables == agent.tables
  assert cloudpickle.loads(cloudpickle.dumps(state)).steps == 1
