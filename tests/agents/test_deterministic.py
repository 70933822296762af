"""Noise and exploration of deterministic policies."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from callsheet.agents.deterministic import deterministic, explore, next_noise


@pytest.mark.parametrize('correlation', [0.0, 0.85])
def test_noise_has_its_deviation_and_its_correlation(correlation):
  def step(noise, key):
    noise = next_noise(noise, key, 0.3, correlation)
    return noise, noise

  keys = jax.random.split(jax.random.PRNGKey(0), 500)
  _, noise = jax.lax.scan(step, jnp.zeros((50, 2)), keys)
  late = np.asarray(noise)[100:].reshape(400, -1)
  np.testing.assert_allclose(late.std(), 0.3, rtol=0.03)
  found = np.corrcoef(late[:-1].ravel(), late[1:].ravel())[0, 1]
  np.testing.assert_allclose(found, correlation, atol=0.02)


def test_anything_is_tried_until_something_was_learnt():
  action, noise = jnp.full((1000, 1), 0.9), jnp.full((1000, 1), 0.3)
  key = jax.random.PRNGKey(0)
  tried = np.asarray(explore(action, noise, jnp.int32(0), key))
  assert abs(tried.mean()) < 0.1 and tried.min() < -0.98 and tried.max() > 0.98
  np.testing.assert_array_equal(explore(action, noise, jnp.int32(1), key), 1.0)
  np.testing.assert_allclose(explore(action, -noise, jnp.int32(1), key), 0.6, rtol=1e-6)


def test_a_head_is_a_squashed_layer_that_begins_near_zero():
  head = hk.without_apply_rng(hk.transform(lambda x: deterministic(x, 2)))
  features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  params = head.init(jax.random.PRNGKey(0), features)
  assert np.abs(head.apply(params, features)).max() < 0.1
  larger = jax.tree.map(lambda leaf: 50 * leaf, params)
  layer = larger['policy']
  expected = np.tanh(features @ np.asarray(layer['w']) + np.asarray(layer['b']))
  np.testing.assert_allclose(
    head.apply(larger, features), expected, rtol=1e-4, atol=1e-6
  )
