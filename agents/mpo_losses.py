"""How MPO improves a policy: better samples weigh more, and each step is a short one.

E-step: of N actions sampled in a state, each is weighted by the softmax of its value
over a temperature. M-step: the policy becomes more likely to take what weighs much,
with the divergence from the target policy held within bounds. Temperature and
multipliers are the duals of bounds, and are learnt: Abdolmaleki et al. 2018,
https://arxiv.org/abs/1806.06920.

Of a Gaussian, mean and standard deviation have bounds of their own, in each dimension:
Abdolmaleki et al. 2018b, https://arxiv.org/abs/1812.02256. The weights of actions that
leave the bounds are those of a second objective, as in Abdolmaleki et al. 2020,
https://arxiv.org/abs/2005.07513.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from callsheet.agents.base import Metrics
from callsheet.agents.rlax_import import import_distrax, import_rlax


class Gaussian(NamedTuple):
  """Normal distributions, one for each number of an action.

  Attributes:
    mean: `[B, A]`.
    stddev: `[B, A]`.
  """

  mean: chex.Array
  stddev: chex.Array

  def sample(self, key: chex.PRNGKey, count: int) -> chex.Array:
    """Actions `[count, B, A]`."""
    noise = jax.random.normal(key, (count, *jnp.shape(self.mean)))
    return jnp.add(self.mean, jnp.multiply(self.stddev, noise))


class Bounded(NamedTuple):
  """What a policy may change, in nats of KL divergence.

  Attributes:
    improvement: from the sampled policy to the weighted samples.
    penalty: the same, for the weights that draw actions into the bounds.
    mean: from the target policy to the policy of the new mean.
    stddev: from the target policy to the policy of the new standard deviation.
  """

  improvement: float
  penalty: float
  mean: float
  stddev: float


class Duals(NamedTuple):
  """What prices the bounds; `positive` makes prices of these numbers.

  Attributes:
    temperature: of the improvement, `[]`.
    penalty_temperature: `[]`.
    mean: multipliers, `[A]`, or `[]` where one is for all dimensions.
    stddev: likewise.
  """

  temperature: chex.Array
  penalty_temperature: chex.Array
  mean: chex.Array
  stddev: chex.Array


def positive(raw: chex.Array) -> chex.Array:
  """A temperature or a multiplier: above 0, and nearly the number itself above 3."""
  return jax.nn.softplus(raw) + 1e-8


def raw(price: float) -> chex.Array:
  """The number of which `positive` makes this price, `[]`."""
  return jnp.asarray(price + jnp.log(-jnp.expm1(-price)), jnp.float32)


def decoupled_kls(
  target: Gaussian, online: Gaussian, per_dimension: bool
) -> tuple[chex.Array, chex.Array]:
  """The divergences from the target, with its mean or deviation changed alone.

  Args:
    target: from which they are.
    online: whose mean, and whose deviation, is taken.
    per_dimension: whether they are `[B, A]`, or `[B]`, the sum.

  Returns:
    Of the mean, and of the standard deviation.
  """
  normal = import_distrax().Normal
  base = normal(*target)
  kls = (
    base.kl_divergence(normal(online.mean, target.stddev)),
    base.kl_divergence(normal(target.mean, online.stddev)),
  )
  if per_dimension:
    return kls
  return jnp.sum(kls[0], axis=-1), jnp.sum(kls[1], axis=-1)


def policy_loss(
  bounds: Bounded,
  duals: Duals,
  target: Gaussian,
  online: Gaussian,
  actions: chex.Array,
  values: chex.Array,
  *,
  penalize: bool,
) -> tuple[chex.Array, Metrics]:
  """What both steps minimize, in the policy's parameters and the duals.

  Args:
    bounds: of the changes.
    duals: whose shape says whether each dimension has its bounds.
    target: the policy that sampled, a constant.
    online: the policy that is improved.
    actions: `[N, B, A]`, of which [-1, 1] are in bounds.
    values: `[N, B]`, of these actions once they are clipped.
    penalize: whether weight goes to the actions that are the least out of bounds.

  Returns:
    The loss `[]`, and metrics.
  """
  rlax = import_rlax()
  per_dimension = duals.mean.ndim > 0
  actions, values = jax.lax.stop_gradient((actions, values))
  weights, dual_loss = e_step(values, duals.temperature, bounds.improvement)
  metrics = {'temperature': positive(duals.temperature), 'kl_q': kl_of_weights(weights)}
  if penalize:
    excess = jnp.linalg.norm(actions - jnp.clip(actions, -1, 1), axis=-1)
    inward, penalty_loss = e_step(-excess, duals.penalty_temperature, bounds.penalty)
    weights, dual_loss = weights + inward, dual_loss + penalty_loss
    metrics['out_of_bounds'] = jnp.mean(excess)
  fit = -jnp.mean(jnp.sum(weights * _log_probabilities(target, online, actions), 0))
  kl_mean, kl_stddev = decoupled_kls(target, online, per_dimension)
  penalties = [
    (kl_mean, rlax.LagrangePenalty(duals.mean, bounds.mean, per_dimension)),
    (kl_stddev, rlax.LagrangePenalty(duals.stddev, bounds.stddev, per_dimension)),
  ]
  kl_loss, multiplier_loss = rlax.compute_parametric_kl_penalty_and_dual_loss(
    penalties, positive
  )
  metrics |= {
    'policy_loss': fit,
    'kl_mean': jnp.mean(kl_mean),
    'kl_stddev': jnp.mean(kl_stddev),
    'multiplier_mean': jnp.mean(positive(duals.mean)),
    'multiplier_stddev': jnp.mean(positive(duals.stddev)),
  }
  return fit + dual_loss + jnp.mean(kl_loss + multiplier_loss), metrics


def e_step(
  values: chex.Array, temperature: chex.Array, bound: float
) -> tuple[chex.Array, chex.Array]:
  """The weights `[N, B]`, constants that sum up to 1, and the temperature's loss."""
  rlax = import_rlax()
  penalty = rlax.LagrangePenalty(temperature, bound)
  loss, weights, _ = rlax.mpo_compute_weights_and_temperature_loss(
    values, penalty, positive
  )
  return jax.lax.stop_gradient(weights), jnp.mean(loss)


def _log_probabilities(
  target: Gaussian, online: Gaussian, actions: chex.Array
) -> chex.Array:
  """`[N, B]`: mean and standard deviation each learn beside the target's other."""
  diagonal = import_distrax().MultivariateNormalDiag
  of_mean = diagonal(online.mean, target.stddev).log_prob(actions)
  of_stddev = diagonal(target.mean, online.stddev).log_prob(actions)
  total: chex.Array = of_mean + of_stddev
  return total


def kl_of_weights(weights: chex.Array) -> chex.Array:
  """How far the weights are from equal ones, in nats, `[]`."""
  count = weights.shape[0]
  return jnp.mean(jnp.sum(jax.scipy.special.xlogy(weights, count * weights), axis=0))
