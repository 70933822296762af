"""Policies that name one action in [-1, 1], and the noise by which they explore."""

from __future__ import annotations

import chex
import haiku as hk
import jax
import jax.numpy as jnp


def deterministic(features: chex.Array, size: int) -> chex.Array:
  """A policy's head: actions `[..., A]`, as a haiku function of features `[..., F]`.

  It begins near 0, where tanh has a slope.

  Args:
    features: `[..., F]`.
    size: A, the numbers in an action.
  """
  near_zero = hk.initializers.VarianceScaling(1e-4)
  return jnp.tanh(hk.Linear(size, w_init=near_zero, name='policy')(features))


def next_noise(
  noise: chex.Array, key: chex.PRNGKey, scale: float, correlation: float
) -> chex.Array:
  """Gaussian noise `[B, A]` for the next step of B environments.

  In the long run it has the deviation `scale`, and the correlation `correlation` with
  that of the step before: with 0 it is white, near 1 a discrete Ornstein-Uhlenbeck
  process, as in Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971.

  Args:
    noise: `[B, A]`, of the step before; zeros where an episode begins.
    key: of what is new in it.
    scale: at least 0.
    correlation: in [0, 1).
  """
  fresh = scale * jax.random.normal(key, noise.shape)
  return correlation * noise + jnp.sqrt(1 - correlation**2) * fresh


def explore(
  action: chex.Array, noise: chex.Array, steps: chex.Array, key: chex.PRNGKey
) -> chex.Array:
  """What is tried, `[B, A]` in [-1, 1]: anything until something has been learnt.

  Args:
    action: `[B, A]`, of the policy.
    noise: `[B, A]`.
    steps: `[]`, the updates so far; at 0 the action is uniformly random.
    key: of the random one.
  """
  random = jax.random.uniform(key, action.shape, minval=-1, maxval=1)
  return jnp.where(steps > 0, jnp.clip(action + noise, -1, 1), random)
