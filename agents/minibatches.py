"""Several epochs of SGD on one batch, in shuffled minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp

T = TypeVar('T')


def epochs(
  step: Callable[[T, Any], tuple[T, Any]],
  state: T,
  data: Any,
  key: chex.PRNGKey,
  *,
  num_epochs: int,
  num_minibatches: int,
) -> tuple[T, Any]:
  """Takes `step` on each minibatch of each epoch, as `lax.scan` does.

  The rows are shuffled over the whole batch. Where several devices share it, XLA brings
  each minibatch to all of them in equal parts: what comes of it is what one device
  makes of it.

  Args:
    step: `(state, minibatch) -> (state, metrics)`.
    state: before.
    data: a pytree of arrays `[N, ...]`, which `num_minibatches` divides.
    key: of the shuffling; each epoch has an order of its own.
    num_epochs: how often each row is seen.
    num_minibatches: of an epoch.

  Returns:
    the state behind, and the metrics `[num_epochs, num_minibatches, ...]`.
  """
  length = len(jax.tree.leaves(data)[0])

  def epoch(state: T, key: chex.PRNGKey) -> tuple[T, Any]:
    order = jax.random.permutation(key, length)
    order = jnp.reshape(order, (num_minibatches, length // num_minibatches))

    def minibatch(state: T, some: jax.Array) -> tuple[T, Any]:
      return step(
        state, jax.tree.map(lambda array: jnp.take(array, some, axis=0), data)
      )

    return jax.lax.scan(minibatch, state, order)

  return jax.lax.scan(epoch, state, jax.random.split(key, num_epochs))
