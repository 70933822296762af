"""What the losses of the offline agents are, worked by hand, and the laws they keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents import crr, iql, td3_bc
from callsheet.agents.base import Batch
from callsheet.agents.cql import conservative_penalty
from callsheet.agents.transitions import Transitions, td_loss


def test_expectile_loss_by_hand():
  losses = iql.expectile_loss(jnp.array([2.0, -2.0, 0.0, 1.0]), 0.7)
  np.testing.assert_allclose(losses, [2.8, 1.2, 0.0, 0.7], rtol=1e-6)


@given(
  st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=8),
  st.floats(0.05, 0.95),
)
@settings(max_examples=50, deadline=None)
def test_its_minimum_is_the_expectile(values, expectile):
  # The tau-expectile v of values q: tau E[(q - v)+] = (1 - tau) E[(v - q)+].
  q = np.array(values, np.float64)
  low, high = q.min(), q.max()
  for _ in range(60):
    v = (low + high) / 2
    above = expectile * np.maximum(q - v, 0).mean()
    below = (1 - expectile) * np.maximum(v - q, 0).mean()
    low, high = (v, high) if above > below else (low, v)

  def loss(v):
    return float(
      np.mean(iql.expectile_loss(jnp.asarray(q - v, jnp.float32), expectile))
    )

  slack = 1e-4 * (1 + loss(v))
  assert all(loss(v) <= loss(v + d) + slack for d in (-2.0, -0.1, 0.1, 2.0))


@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_the_middle_expectile_is_half_the_square(values):
  differences = jnp.asarray(values, jnp.float32)
  losses = iql.expectile_loss(differences, 0.5)
  np.testing.assert_allclose(losses, 0.5 * jnp.square(differences), rtol=1e-6)


def test_weights_of_iql_by_hand():
  advantage = jnp.array([0.0, np.log(2) / 3, -np.log(2) / 3, 50.0])
  weights = iql.policy_weights(advantage, 3.0, 100.0)
  np.testing.assert_allclose(weights, [1.0, 2.0, 0.5, 100.0], rtol=1e-5)
  np.testing.assert_allclose(iql.policy_weights(advantage, 0.0, 100.0), np.ones(4))


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    # Advantages over the mean: 2, -1, 50; over the best: 1, -3, 40.
    ({'weights': 'binary'}, [1, 0, 1]),
    ({'weights': 'binary', 'advantage': 'max'}, [1, 0, 1]),
    ({}, [np.exp(2), np.exp(-1), 20]),
    ({'advantage': 'max'}, [np.exp(1), np.exp(-3), 20]),
    ({'temperature': 2.0}, [np.exp(1), np.exp(-0.5), 20]),
    ({'temperature': 2.0, 'max_weight': 2.0}, [2, np.exp(-0.5), 2]),
  ],
)
def test_weights_of_crr_by_hand(options, expected):
  value = jnp.array([3.0, 0.0, 60.0])
  sampled = jnp.array([[2.0, 3.0, 0.0], [0.0, -1.0, 20.0]])
  weights = crr.policy_weights(crr.CRRConfig(**options), value, sampled)
  np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_an_advantage_of_nothing_is_not_cloned_by_binary_weights():
  zeros = jnp.zeros((1, 2))
  weights = crr.policy_weights(crr.CRRConfig(weights='binary'), zeros[0], zeros)
  np.testing.assert_array_equal(weights, [0, 0])


def test_the_conservative_penalty_of_discrete_actions_by_hand():
  # Two observations, three actions: log(e^0 + e^1 + e^2) - 1 and log(3 e^4) - 4.
  q = jnp.array([[0.0, 4.0], [1.0, 4.0], [2.0, 4.0]])
  log_density = jnp.full((3, 2), -np.log(3))
  penalty = conservative_penalty(q, log_density, jnp.array([1.0, 4.0]))
  first = np.log(1 + np.e + np.e**2) - 1
  np.testing.assert_allclose(penalty, (first + np.log(3)) / 2, rtol=1e-6)


def test_the_conservative_penalty_estimates_an_integral():
  # Q(s, a) = 3 a over [-1, 1]: the integral of exp is (e^3 - e^-3) / 3.
  key = jax.random.PRNGKey(0)
  actions = jax.random.uniform(key, (200_000, 1), minval=-1.0)
  even = jnp.full(actions.shape, -np.log(2))
  integral = np.log((np.e**3 - np.e**-3) / 3)
  penalty = conservative_penalty(3 * actions, even, jnp.array([0.5]))
  np.testing.assert_allclose(penalty, integral - 0.5, atol=0.02)
  # Drawn unevenly, with density (1 + a) / 2, it is the same.
  drawn = 2 * jnp.sqrt((actions + 1) / 2) - 1
  density = jnp.log((1 + drawn) / 2)
  penalty = conservative_penalty(3 * drawn, density, jnp.array([0.5]))
  np.testing.assert_allclose(penalty, integral - 0.5, atol=0.02)


def test_the_penalty_of_two_critics_is_the_mean_of_theirs():
  generator = np.random.default_rng(0)
  q = jnp.asarray(generator.normal(size=(2, 5, 3)), jnp.float32)
  log_density = jnp.asarray(generator.normal(size=(5, 3)), jnp.float32)
  q_data = jnp.asarray(generator.normal(size=(2, 3)), jnp.float32)
  both = conservative_penalty(q, log_density, q_data)
  each = [conservative_penalty(q[i], log_density, q_data[i]) for i in range(2)]
  np.testing.assert_allclose(both, np.mean(each), rtol=1e-5)


def test_what_td3_bc_minimises_by_hand():
  # mean |Q| = 2, so lambda = 5 / 2; mean Q = 1; the squares are 1, 0, 4, 1.
  q, chosen = jnp.array([3.0, -1.0]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
  action = jnp.array([[0.0, 0.0], [2.0, 0.0]])
  loss = td3_bc.policy_loss(5.0, q, chosen, action)
  np.testing.assert_allclose(loss, 6 / 4 - 2.5, rtol=1e-5)
  # Lambda is a number, not a way to make Q look larger.
  gradient = jax.grad(lambda q: td3_bc.policy_loss(5.0, q, chosen, action))(q)
  np.testing.assert_allclose(gradient, [-1.25, -1.25], rtol=1e-5)


def test_the_td_loss_by_hand_and_where_its_gradient_goes():
  data = Transitions.of(
    Batch(
      {
        'observation': jnp.zeros((2, 1)),
        'action': jnp.zeros(2),
        'reward': jnp.array([1.0, 2.0]),
        'discount': jnp.array([0.5, 0.0]),
        'next_observation': jnp.zeros((2, 1)),
      },
      jnp.ones(2),
      jnp.asarray(2),
    )
  )
  q, following = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([2.0, 7.0])
  # Returns 2 and 2: errors 1, 0 and -1, 2.
  np.testing.assert_allclose(td_loss(data, q, following), 0.5 + 2.5)
  of_q, of_next = jax.grad(td_loss, argnums=(1, 2))(data, q, following)
  np.testing.assert_allclose(of_q, [[-1, 0], [1, -2]])
  np.testing.assert_allclose(of_next, [0, 0])
