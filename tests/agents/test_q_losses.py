"""Losses of distributions and Munchausen's, against numbers worked by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from callsheet.agents.base import Batch
from callsheet.agents.dqn import DQNConfig
from callsheet.agents.q_losses import munchausen_losses, q_losses
from callsheet.agents.q_networks import Values, atoms, midpoints


def batch_of(action, reward, discount):
  data = {
    'action': np.array(action, np.int32),
    'reward': np.array(reward, np.float32),
    'discount': np.array(discount, np.float32),
  }
  return Batch(data, np.ones(len(action), np.float32), np.int32(1))


def of_logits(config, logits):
  logits = jnp.asarray(logits, jnp.float32)
  q = jax.nn.softmax(logits) @ atoms(config)
  return Values(q, q[:, None], jnp.full((len(q), 1), 0.5), logits)


def of_quantiles(quantiles):
  quantiles = jnp.asarray(quantiles, jnp.float32)
  taus = jnp.tile(midpoints(quantiles.shape[1]), (len(quantiles), 1))
  return Values(quantiles.mean(axis=1), quantiles, taus, None)


# C51: the atoms are 0, 1, 2.
THREE = DQNConfig(distribution='categorical', num_atoms=3, v_min=0.0, v_max=2.0)


def test_a_projection_worked_by_hand():
  # First: 0.5 + 0.5 z = (0.5, 1, 1.5) with probabilities (1/4, 1/2, 1/4): half of each
  # outer quarter goes to its two neighbours, (1/8, 3/4, 1/8), of mean 1.
  # Second: 5 + 0.9 z is above all atoms, (0, 0, 1), of mean 2.
  # Third: the episode is over, and 0.25 lies between atoms: (3/4, 1/4, 0).
  # The online network has all atoms alike, of mean 1.
  batch = batch_of([0, 1, 0], [0.5, 5, 0.25], [0.5, 0.9, 0])
  there = np.log([[[0.9, 0.05, 0.05], [0.25, 0.5, 0.25]]] * 3)
  online = of_logits(THREE, np.zeros((3, 2, 3)))
  # The selector's best action, 1, counts, whatever the target network thinks of it.
  selector = jnp.tile(jnp.array([0.0, 1.0]), (3, 1))
  found = q_losses(THREE, batch, online, of_logits(THREE, there), selector)
  entropy = [
    -(0.25 * np.log(1 / 8) + 0.75 * np.log(3 / 4)),
    0,
    -(0.75 * np.log(3 / 4) + 0.25 * np.log(1 / 4)),
  ]
  np.testing.assert_allclose(found.losses, np.log(3) - entropy, rtol=1e-5)
  np.testing.assert_allclose(found.priorities, found.losses)
  np.testing.assert_allclose(found.errors, [0, 1, -0.75], atol=1e-6)


def test_the_categorical_loss_is_that_of_rlax_less_an_entropy():
  config = DQNConfig(distribution='categorical', num_atoms=7, v_min=-2.0, v_max=3.0)
  rng = np.random.default_rng(0)
  batch = batch_of([0, 1, 2, 0], rng.normal(size=4), [0.9, 0, 0.5, 1])
  online, target = (of_logits(config, rng.normal(size=(4, 3, 7))) for _ in range(2))
  selector = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
  z = atoms(config)

  def ours(logits):
    online = of_logits(config, logits)
    return jnp.sum(q_losses(config, batch, online, target, selector).losses)

  def theirs(logits):
    losses = jax.vmap(
      rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0)
    )(z, logits, *batch.data.values(), z, target.logits, selector)
    return jnp.sum(losses)

  gradients = [jax.grad(loss)(online.logits) for loss in (ours, theirs)]
  np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)
  # The entropy of the targets is what is left of their loss where both agree.
  assert 0 < ours(online.logits) < theirs(online.logits)


def test_a_categorical_loss_is_zero_at_its_target():
  logits = np.log([[[0.75, 0.25, 1e-30], [1, 1, 1]]])
  batch = batch_of([0], [0.25], [0])
  values = of_logits(THREE, logits)
  found = q_losses(THREE, batch, values, values, values.q)
  np.testing.assert_allclose(found.priorities, 0, atol=1e-6)
  assert found.priorities >= 0


# Quantiles 0 and 2 at probabilities 1/4 and 3/4; targets 1 + 0.5 (0, 4) = (1, 3).
# Of 0 the errors are 1 and 3, weighed by 1/4; of 2 they are -1 and 1, by 1/4 and 3/4.
# Huber's (0.5, 2.5) and (0.5, 0.5): (0.125 + 0.625) / 2 + (0.125 + 0.375) / 2.
# Plain: (0.25 + 0.75) / 2 + (0.25 + 0.75) / 2.
@pytest.mark.parametrize('distribution', ['quantile', 'implicit'])
@pytest.mark.parametrize(('delta', 'loss'), [(1.0, 0.625), (None, 1.0)])
def test_quantiles_worked_by_hand(distribution, delta, loss):
  config = DQNConfig(distribution=distribution, num_quantiles=2, huber_delta=delta)
  online = of_quantiles([[[9, 0], [9, 2]]])
  target = of_quantiles([[[0, 7], [4, 7]]])
  selector = jnp.array([[1.0, 0.0]])
  found = q_losses(config, batch_of([1], [1], [0.5]), online, target, selector)
  np.testing.assert_allclose(found.losses, [loss], rtol=1e-6)
  np.testing.assert_allclose(found.errors, [2 - 1], rtol=1e-6)
  np.testing.assert_allclose(found.priorities, [1], rtol=1e-6)


# Munchausen.


def softmax(values, temperature):
  powers = np.exp(np.asarray(values, np.float64) / temperature)
  return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize('num_quantiles', [1, 5])
def test_munchausen_targets_in_numpy(num_quantiles):
  distribution = 'none' if num_quantiles == 1 else 'quantile'
  config = DQNConfig(
    munchausen=True,
    double=False,
    distribution=distribution,
    munchausen_alpha=0.8,
    munchausen_temperature=0.5,
    huber_delta=None,
  )
  rng = np.random.default_rng(1)
  action, reward, discount = [0, 2, 1], rng.normal(size=3), np.array([0.9, 0, 0.5])
  online, target = (
    of_quantiles(rng.normal(size=(3, num_quantiles, 3))) for _ in range(2)
  )
  before = rng.normal(size=(3, 3))
  found = munchausen_losses(
    config, batch_of(action, reward, discount), online, target, jnp.asarray(before)
  )
  for i in range(3):
    policy = softmax(target.q[i], 0.5)
    soft = (policy * (np.asarray(target.quantiles[i]) - 0.5 * np.log(policy))).sum(-1)
    bonus = 0.5 * np.log(softmax(before[i], 0.5)[action[i]])
    targets = reward[i] + 0.8 * max(bonus, -1) + discount[i] * soft
    chosen = np.asarray(online.quantiles[i, :, action[i]])
    error = targets.mean() - chosen.mean()
    np.testing.assert_allclose(found.errors[i], error, rtol=1e-4)
    differences = targets[None] - chosen[:, None]
    if num_quantiles == 1:
      loss = error**2 / 2
    else:
      below = (differences < 0) - np.asarray(online.taus[i])[:, None]
      loss = (np.abs(below) * np.abs(differences)).mean(axis=1).sum()
    np.testing.assert_allclose(found.losses[i], loss, rtol=1e-4)


def test_munchausen_is_clipped_and_soft():
  # ln pi(0) is -10, which counts as -1; the next state's two values of 0 are worth ln 2
  # at a temperature of 1. The target is 1 - 0.9 + 0.5 ln 2, the value 0.
  config = DQNConfig(munchausen=True, double=False, munchausen_temperature=1.0)
  zeros = of_quantiles(np.zeros((1, 1, 2)))
  before = jnp.array([[0.0, 10.0]])
  batch = batch_of([0], [1], [0.5])
  found = munchausen_losses(config, batch, zeros, zeros, before)
  np.testing.assert_allclose(found.errors, 1 - 0.9 + 0.5 * np.log(2), rtol=1e-5)
  # The action that is all but certain has next to no bonus.
  again = munchausen_losses(config, batch_of([1], [1], [0.5]), zeros, zeros, before)
  np.testing.assert_allclose(again.errors, 1 + 0.5 * np.log(2), rtol=1e-4)


@pytest.mark.parametrize('distribution', ['none', 'quantile', 'categorical'])
def test_targets_have_no_gradient(distribution):
  config = DQNConfig(
    distribution=distribution,
    munchausen=distribution == 'none',
    double=distribution != 'none',
  )
  batch = batch_of([0], [1], [0.9])

  def loss(shift):
    if distribution == 'categorical':
      online = of_logits(config, np.zeros((1, 2, 51)))
      target = of_logits(config, shift * jnp.ones((1, 2, 51)).at[:, :, 3].set(2))
    else:
      online = of_quantiles(np.zeros((1, 2, 2)))
      target = of_quantiles(shift * jnp.ones((1, 2, 2)))
    if config.munchausen:
      found = munchausen_losses(config, batch, online, target, target.q)
    else:
      found = q_losses(config, batch, online, target, target.q)
    return jnp.sum(found.losses)

  assert jax.grad(loss)(1.0) == 0
  assert loss(1.0) != loss(3.0)
