"""Gaussians that tanh squashes into (-1, 1): policies for bounded actions.

Haarnoja et al. 2018, appendix C, https://arxiv.org/abs/1812.05905
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from callsheet.agents.rlax_import import import_distrax

LOWEST_LOG_STD, HIGHEST_LOG_STD = -10.0, 2.0
# The inverse of tanh is infinite at 1.
_INSIDE = 1 - 1e-6


class SquashedGaussian(NamedTuple):
  """The distribution of tanh(x), with x normal and its numbers independent.

  Attributes:
    mean: `[..., A]`, of x.
    log_std: `[..., A]`, the logarithm of x's standard deviation.
  """

  mean: chex.Array
  log_std: chex.Array

  def mode(self) -> chex.Array:
    """The tanh of x's mean, `[..., A]`: what is played in the end."""
    return jnp.tanh(self.mean)

  def sample(self, key: chex.PRNGKey) -> chex.Array:
    """Actions `[..., A]`; needs no distrax, so that an actor doesn't load it."""
    noise = jax.random.normal(key, self.mean.shape)
    return jnp.tanh(self.mean + jnp.exp(self.log_std) * noise)

  def sample_and_log_prob(self, key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
    """Actions `[..., A]` and their log-densities `[...]`, exact however close to 1."""
    action, log_prob = self._distribution().sample_and_log_prob(seed=key)
    return action, log_prob

  def log_prob(self, action: chex.Array) -> chex.Array:
    """Log-densities `[...]` of actions `[..., A]`; those at the very ends, where it is
    infinite, are moved inside a little."""
    inside = jnp.clip(action, -_INSIDE, _INSIDE)
    log_prob: chex.Array = self._distribution().log_prob(inside)
    return log_prob

  def _distribution(self) -> Any:
    distrax = import_distrax()
    normal = distrax.MultivariateNormalDiag(self.mean, jnp.exp(self.log_std))
    return distrax.Transformed(normal, distrax.Block(distrax.Tanh(), 1))


def squashed_gaussian(features: chex.Array, size: int) -> SquashedGaussian:
  """A policy's head, as a haiku function of features `[..., F]`.

  It begins near mean 0 and deviation 1, which spreads actions almost evenly.

  Args:
    features: `[..., F]`.
    size: A, the numbers in an action.
  """
  near_zero = hk.initializers.VarianceScaling(1e-4)
  outputs = hk.Linear(2 * size, w_init=near_zero, name='policy')(features)
  mean, log_std = jnp.split(outputs, 2, axis=-1)
  return SquashedGaussian(mean, jnp.clip(log_std, LOWEST_LOG_STD, HIGHEST_LOG_STD))
