"""Critics against NumPy."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from callsheet.agents.critics import critics, td_errors

RNG = np.random.default_rng(0)
OBSERVATION = RNG.normal(size=(4, 3)).astype(np.float32)
ACTION = RNG.uniform(-1, 1, size=(4, 2)).astype(np.float32)


def network(**options):
  values = critics(lambda x: 2 * x, (5, 6), **options)
  return hk.without_apply_rng(hk.transform(values))


def by_hand(params, i, observation, action):
  x = np.concatenate([2 * observation, action], axis=-1)
  for j in range(3):
    layer = params[f'critic_{i}/~/linear_{j}']
    x = x @ np.asarray(layer['w']) + np.asarray(layer['b'])
    x = np.maximum(x, 0) if j < 2 else x
  return x


@pytest.mark.parametrize('outputs', [None, 7])
def test_each_critic_is_a_network_of_its_own(outputs):
  critic = network(outputs=outputs)
  params = critic.init(jax.random.PRNGKey(0), OBSERVATION, ACTION)
  values = critic.apply(params, OBSERVATION, ACTION)
  assert values.shape == ((2, 4) if outputs is None else (2, 4, 7))
  for i in range(2):
    expected = by_hand(params, i, OBSERVATION, ACTION)
    expected = expected[:, 0] if outputs is None else expected
    np.testing.assert_allclose(values[i], expected, rtol=1e-5, atol=1e-6)
  assert not np.allclose(values[0], values[1])


def test_several_actions_are_valued_for_each_observation():
  critic = network(count=3)
  params = critic.init(jax.random.PRNGKey(0), OBSERVATION, ACTION)
  actions = RNG.uniform(-1, 1, size=(5, 4, 2)).astype(np.float32)
  values = critic.apply(params, OBSERVATION, actions)
  assert values.shape == (3, 5, 4)
  for k, action in enumerate(actions):
    alone = critic.apply(params, OBSERVATION, action)
    np.testing.assert_allclose(values[:, k], alone, rtol=1e-4, atol=1e-6)


def test_all_critics_have_the_same_target():
  values = jnp.array([[1.0, 2.0], [0.0, -1.0]])
  errors = td_errors(
    values, jnp.array([1.0, 3.0]), jnp.array([0.5, 0.0]), jnp.array([4.0, 100.0])
  )
  np.testing.assert_allclose(errors, [[2.0, 1.0], [3.0, 4.0]])


def test_no_gradient_goes_into_the_next_value():
  def total(values, next_value):
    one = jnp.ones(2)
    return jnp.sum(td_errors(values, one, one, next_value))

  to_values, to_next = jax.grad(total, argnums=(0, 1))(jnp.ones((2, 2)), jnp.ones(2))
  np.testing.assert_array_equal(to_values, -1.0)
  np.testing.assert_array_equal(to_next, 0.0)
