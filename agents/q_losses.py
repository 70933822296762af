"""How far values of actions are from their targets: of means and of distributions."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from callsheet.agents.base import Batch
from callsheet.agents.dqn_config import DQNConfig
from callsheet.agents.q_networks import Values, atoms
from callsheet.agents.rlax_import import import_rlax


class QLosses(NamedTuple):
  """Of B transitions, `[B]` float32 each.

  Attributes:
    losses: what is minimized.
    errors: the TD errors of the means, target minus value.
    priorities: at least 0: the errors' size, or of categorical distributions the
      divergence, as in Rainbow.
  """

  losses: jax.Array
  errors: jax.Array
  priorities: jax.Array


def q_losses(
  config: DQNConfig, batch: Batch, online: Values, target: Values, selector: jax.Array
) -> QLosses:
  """Q-learning of means, quantiles or atoms.

  Args:
    config: what can be chosen.
    batch: see `Batch`.
    online: of the observations, by the network that learns.
    target: of the next observations, by the target network.
    selector: the values `[B, A]` of the next observations whose best action is taken.
  """
  rlax, data = import_rlax(), batch.data
  if online.logits is not None:
    return _categorical(config, batch, online, target, selector)
  observed = (data['action'], data['reward'], data['discount'])
  if config.distribution == 'none':
    errors = jax.vmap(rlax.double_q_learning)(online.q, *observed, target.q, selector)
    return QLosses(_of_errors(config, errors), errors, jnp.abs(errors))
  losses = jax.vmap(rlax.quantile_q_learning, (0, 0, 0, 0, 0, 0, 0, None))(
    online.quantiles,
    online.taus,
    *observed,
    selector[:, None],
    target.quantiles,
    config.huber_delta or 0.0,
  )
  errors = jax.vmap(rlax.double_q_learning)(online.q, *observed, target.q, selector)
  return QLosses(losses, errors, jnp.abs(errors))


def munchausen_losses(
  config: DQNConfig, batch: Batch, online: Values, target: Values, before: jax.Array
) -> QLosses:
  """Munchausen Q-learning of means or quantiles: Vieillard et al. 2020.

  Args:
    config: what can be chosen.
    batch: see `Batch`.
    online: of the observations, by the network that learns.
    target: of the next observations, by the target network.
    before: the values `[B, A]` of the observations, by the target network.
  """
  rlax, data = import_rlax(), batch.data
  temperature = config.munchausen_temperature
  action = jnp.asarray(data['action'])[:, None]
  log_policy = temperature * jax.nn.log_softmax(before / temperature)
  bonus = jnp.take_along_axis(log_policy, action, axis=-1)[:, 0]
  bonus = jnp.clip(bonus, config.munchausen_clip, 0)
  policy = jax.nn.softmax(target.q / temperature)[:, None]
  entropy = -temperature * jax.nn.log_softmax(target.q / temperature)[:, None]
  soft = jnp.sum(policy * (target.quantiles + entropy), axis=-1)
  reward = data['reward'] + config.munchausen_alpha * bonus
  targets = jax.lax.stop_gradient(_moved(reward, data['discount'], soft))
  chosen = jnp.take_along_axis(online.quantiles, action[..., None], axis=-1)[..., 0]
  errors = jnp.mean(targets, axis=-1) - jnp.mean(chosen, axis=-1)
  if config.distribution == 'none':
    losses = _of_errors(config, errors)
  else:
    losses = jax.vmap(rlax.quantile_regression_loss, (0, 0, 0, None))(
      chosen, online.taus, targets, config.huber_delta or 0.0
    )
  return QLosses(losses, errors, jnp.abs(errors))


def importance_weights(
  probabilities: chex.Array, table_size: chex.Array, exponent: float
) -> chex.Array:
  """`(N P(i))^-beta` over the batch's largest: Schaul et al. 2016, section 3.4.

  Args:
    probabilities: `[B]`, of drawing each item.
    table_size: `[]`, the N items that were drawn from.
    exponent: beta.
  """
  # In logarithms: N P(i) may leave the range of float32 before it is scaled.
  logs = -exponent * jnp.log(table_size * probabilities)
  return jnp.exp(logs - jnp.max(logs))


def _moved(reward: chex.Array, discount: chex.Array, values: jax.Array) -> jax.Array:
  """What values `[B, N]` or `[N]` of the next states make of these, `[B, N]`."""
  return jnp.expand_dims(reward, -1) + jnp.expand_dims(discount, -1) * values


def _of_errors(config: DQNConfig, errors: jax.Array) -> jax.Array:
  rlax = import_rlax()
  losses: jax.Array = (
    rlax.l2_loss(errors)
    if config.huber_delta is None
    else rlax.huber_loss(errors, config.huber_delta)
  )
  return losses


def _categorical(
  config: DQNConfig, batch: Batch, online: Values, target: Values, selector: jax.Array
) -> QLosses:
  rlax, data, z = import_rlax(), batch.data, atoms(config)
  assert online.logits is not None and target.logits is not None
  best = jnp.argmax(selector, axis=-1)[:, None, None]
  there = jnp.take_along_axis(target.logits, best, axis=1)[:, 0]
  moved = _moved(data['reward'], data['discount'], z)
  targets = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(
    moved, jax.nn.softmax(there), z
  )
  targets = jax.lax.stop_gradient(targets)
  action = jnp.asarray(data['action'])[:, None, None]
  here = jnp.take_along_axis(online.logits, action, axis=1)[:, 0]
  # The cross-entropy less the target's entropy: it is 0 where both are the same.
  divergences = optax.losses.kl_divergence(jax.nn.log_softmax(here), targets)
  errors = (targets - jax.nn.softmax(here)) @ z
  return QLosses(divergences, errors, jnp.maximum(divergences, 0))
