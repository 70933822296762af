"""Which actions are tried where values are learned: epsilon-greedy, on a ladder."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np


def epsilon_ladder(epsilon: float, alpha: float, num_environments: int) -> jax.Array:
  """The epsilon of each environment, `[B]` float32, largest first.

  Environment i of B has `epsilon^(1 + i / (B - 1) * alpha)`, as in Horgan et al. 2018
  (Ape-X, https://arxiv.org/abs/1803.00933); one alone takes the middle of that ladder.
  """
  count = num_environments
  rungs = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
  return jnp.asarray(epsilon ** (1 + rungs * alpha), jnp.float32)


def epsilon_greedy(
  q_values: jax.Array, epsilon: jax.Array, key: chex.PRNGKey
) -> jax.Array:
  """The action of the largest of the values `[B, A]`, or any one; `[B]` int32.

  Args:
    q_values: `[B, A]`.
    epsilon: how probable it is that all actions are as likely as each other, `[B]`.
    key: of the draws.
  """
  explore_key, action_key = jax.random.split(key)
  greedy = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
  random = jax.random.randint(action_key, greedy.shape, 0, q_values.shape[-1])
  explore = jax.random.uniform(explore_key, greedy.shape) < epsilon
  return jnp.where(explore, random, greedy)
