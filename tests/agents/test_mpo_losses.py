"""MPO's two steps and its duals against numbers worked out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents import mpo_losses
from callsheet.agents.mpo_losses import Bounded, Duals, Gaussian, positive, raw
from callsheet.agents.rlax_import import import_rlax

BOUNDS = Bounded(improvement=0.1, penalty=0.01, mean=0.02, stddev=0.003)
SHAPE = (3, 2)


def gaussian(seed):
  rng = np.random.default_rng(seed)
  return Gaussian(
    rng.normal(size=SHAPE).astype(np.float32),
    rng.uniform(0.3, 1.5, SHAPE).astype(np.float32),
  )


def duals(shape=(2,), **prices):
  taken = {
    'temperature': 2.0,
    'penalty_temperature': 0.5,
    'mean': 3.0,
    'stddev': 20.0,
    **prices,
  }
  return Duals(
    **{
      name: jnp.full(shape if name in ('mean', 'stddev') else (), raw(price))
      for name, price in taken.items()
    }
  )


def kl_by_hand(mean_p, stddev_p, mean_q, stddev_q):
  """KL(p | q) of normal distributions."""
  return (
    np.log(stddev_q / stddev_p)
    + (stddev_p**2 + (mean_p - mean_q) ** 2) / (2 * stddev_q**2)
    - 0.5
  )


def softmax(values):
  """Over the first axis."""
  weights = np.exp(values - values.max(axis=0))
  return weights / weights.sum(axis=0)


def log_normal(x, mean, stddev):
  return -0.5 * ((x - mean) / stddev) ** 2 - np.log(stddev) - 0.5 * np.log(2 * np.pi)


# Prices.


@pytest.mark.parametrize('price', [1e-3, 0.5, 1.0, 10.0, 1000.0])
def test_a_price_is_that_of_its_raw_number(price):
  np.testing.assert_allclose(positive(raw(price)), price, rtol=1e-4)


@settings(deadline=None)
@given(st.floats(-1e4, 1e4))
def test_every_price_is_positive(number):
  assert positive(jnp.float32(number)) > 0


# The E-step.


def test_weights_and_temperature_loss_of_two_actions():
  # Values 0 and ln 3 at temperature 1: weights 1/4 and 3/4, and the mean weight is 2.
  values = jnp.array([[0.0], [np.log(3.0)]], jnp.float32)
  weights, loss = mpo_losses.e_step(values, raw(1.0), 0.1)
  np.testing.assert_allclose(weights, [[0.25], [0.75]], rtol=1e-5)
  np.testing.assert_allclose(loss, 0.1 + np.log(2.0), rtol=1e-5)


def test_a_higher_temperature_evens_the_weights_out():
  values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
  for temperature in (0.5, 4.0):
    weights, loss = mpo_losses.e_step(values, raw(temperature), 0.1)
    scaled = values / temperature
    np.testing.assert_allclose(weights, softmax(scaled), rtol=1e-4)
    dual = temperature * (0.1 + np.log(np.exp(scaled).mean(axis=0)).mean())
    np.testing.assert_allclose(loss, dual, rtol=1e-4)


def test_the_temperature_settles_where_the_weights_use_up_their_bound():
  values = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
  number, optimizer = raw(5.0), optax.adam(0.05)
  state = optimizer.init(number)

  def step(carry, _):
    number, state = carry
    gradient = jax.grad(lambda x: mpo_losses.e_step(values, x, 0.1)[1])(number)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(number, updates), state), None

  (number, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=600))(
    (number, state)
  )
  weights, _ = mpo_losses.e_step(values, number, 0.1)
  divergence = np.mean(np.sum(weights * np.log(16 * weights), axis=0))
  np.testing.assert_allclose(divergence, 0.1, rtol=1e-2)
  np.testing.assert_allclose(mpo_losses.kl_of_weights(weights), divergence, rtol=1e-4)


def test_weights_that_vanish_have_a_divergence():
  assert mpo_losses.kl_of_weights(jnp.array([[1.0], [0.0]])) == pytest.approx(np.log(2))


# The M-step.


def test_the_divergences_are_of_mean_and_deviation_alone():
  target, online = gaussian(0), gaussian(1)
  kl_mean, kl_stddev = mpo_losses.decoupled_kls(target, online, per_dimension=True)
  by_hand = kl_by_hand(*target, online.mean, target.stddev)
  np.testing.assert_allclose(kl_mean, by_hand, rtol=1e-4, atol=1e-6)
  by_hand = kl_by_hand(*target, target.mean, online.stddev)
  np.testing.assert_allclose(kl_stddev, by_hand, rtol=1e-4, atol=1e-6)


def test_the_sums_are_the_divergences_of_whole_actions():
  import_rlax()
  import distrax

  target, online = gaussian(0), gaussian(1)
  kl_mean, kl_stddev = mpo_losses.decoupled_kls(target, online, per_dimension=False)
  base, diagonal = (
    distrax.MultivariateNormalDiag(*target),
    distrax.MultivariateNormalDiag,
  )
  other = diagonal(online.mean, target.stddev)
  np.testing.assert_allclose(kl_mean, base.kl_divergence(other), rtol=1e-4)
  other = diagonal(target.mean, online.stddev)
  np.testing.assert_allclose(kl_stddev, base.kl_divergence(other), rtol=1e-4)


@pytest.mark.parametrize('penalize', [True, False])
@pytest.mark.parametrize('shape', [(2,), ()])
def test_the_loss_in_numpy(penalize, shape):
  target, online = gaussian(0), gaussian(1)
  rng = np.random.default_rng(2)
  actions = rng.normal(size=(4, *SHAPE)).astype(np.float32)
  values = rng.normal(size=(4, 3)).astype(np.float32)
  loss, metrics = mpo_losses.policy_loss(
    BOUNDS, duals(shape), target, online, actions, values, penalize=penalize
  )
  weights = softmax(values / 2)
  expected = 2 * (0.1 + np.log(np.exp(values / 2).mean(axis=0)).mean())
  if penalize:
    excess = np.sqrt((np.maximum(np.abs(actions) - 1, 0) ** 2).sum(axis=-1))
    weights += softmax(-excess / 0.5)
    expected += 0.5 * (0.01 + np.log(np.exp(-excess / 0.5).mean(axis=0)).mean())
    np.testing.assert_allclose(metrics['out_of_bounds'], excess.mean(), rtol=1e-4)
  logs = log_normal(actions, online.mean, target.stddev)
  logs += log_normal(actions, target.mean, online.stddev)
  fit = -(weights * logs.sum(axis=-1)).sum(axis=0).mean()
  kl_mean = kl_by_hand(*target, online.mean, target.stddev)
  kl_stddev = kl_by_hand(*target, target.mean, online.stddev)
  # A multiplier's own loss shows its slack; what it costs the policy cancels with it.
  expected += fit + (2 if shape else 1) * (3 * 0.02 + 20 * 0.003)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['policy_loss'], fit, rtol=1e-4)
  sums = 1 if shape else 2
  np.testing.assert_allclose(metrics['kl_mean'], sums * kl_mean.mean(), rtol=1e-4)
  np.testing.assert_allclose(metrics['kl_stddev'], sums * kl_stddev.mean(), rtol=1e-4)
  assert ('out_of_bounds' in metrics) == penalize


def test_gradients_are_those_of_the_fit_and_the_priced_divergences():
  target, online = gaussian(0), gaussian(1)
  rng = np.random.default_rng(2)
  actions = rng.normal(size=(4, *SHAPE)).astype(np.float32)
  values = rng.normal(size=(4, 3)).astype(np.float32)
  weights = softmax(values / 2)[..., None]

  def loss(online):
    return mpo_losses.policy_loss(
      BOUNDS, duals(), target, online, actions, values, penalize=False
    )[0]

  def priced(mean, stddev):
    fit = weights * log_normal(actions, mean, target.stddev)
    fit = fit + weights * log_normal(actions, target.mean, stddev)
    price = 3 * kl_by_hand(*target, mean, target.stddev)
    price = price + 20 * kl_by_hand(*target, target.mean, stddev)
    return (price.sum() - fit.sum()) / 3

  gradients = jax.grad(loss)(online)
  mean, stddev = (np.asarray(each, np.float64) for each in online)
  for index in np.ndindex(SHAPE):
    step = np.zeros(SHAPE)
    step[index] = 1e-5
    slope = (priced(mean + step, stddev) - priced(mean - step, stddev)) / 2e-5
    np.testing.assert_allclose(gradients.mean[index], slope, rtol=1e-3, atol=1e-4)
    slope = (priced(mean, stddev + step) - priced(mean, stddev - step)) / 2e-5
    np.testing.assert_allclose(gradients.stddev[index], slope, rtol=1e-3, atol=1e-4)


# The law of the multipliers.


@jax.jit
def pressures(bound, moved):
  """The gradients of the two multipliers of one number, whose mean has moved."""
  target = Gaussian(jnp.zeros((1, 1)), jnp.ones((1, 1)))
  online = Gaussian(jnp.full((1, 1), moved), jnp.ones((1, 1)))

  def loss(duals):
    bounds = Bounded(0.1, 0.1, bound, bound)
    nothing = jnp.zeros((2, 1, 1)), jnp.zeros((2, 1))
    return mpo_losses.policy_loss(
      bounds, duals, target, online, *nothing, penalize=False
    )[0]

  return jax.grad(loss)(duals((1,)))


@settings(deadline=None)
@given(st.floats(1e-3, 1.0), st.floats(0.0, 2.0))
def test_a_multiplier_grows_just_where_its_bound_is_exceeded(bound, moved):
  gradients = pressures(bound, moved)
  # The divergence of a unit normal that has moved is half the square; a multiplier
  # goes against its gradient.
  slack = bound - moved**2 / 2
  if abs(slack) > 1e-4:
    assert np.sign(-gradients.mean[0]) == np.sign(-slack)
  assert gradients.stddev[0] > 0
