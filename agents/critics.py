"""Critics of continuous actions: values of an observation and an action in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from callsheet.agents.networks import Torso
from callsheet.agents.rlax_import import import_rlax


def critics(
  torso: Torso, hidden_sizes: Sequence[int], count: int = 2, outputs: int | None = None
) -> Callable[[chex.Array, chex.Array], chex.Array]:
  """Values `[N, ..., B]`, as a haiku function of observations and actions.

  It takes observations `[B, ...]` as the environment gives them, and actions
  `[..., B, A]` in [-1, 1]; with axes in front, several actions are valued for each
  observation. It builds its modules anew in every call, so it belongs inside of
  `hk.transform`.

  Args:
    torso: observations `[B, ...]` to features `[B, F]`; all critics share it.
    hidden_sizes: of each critic's dense layers, with a ReLU behind each.
    count: N, the critics; two of them for the lower of two values.
    outputs: K, so that there are `[N, ..., B, K]` numbers, such as the logits of a
      value's distribution; None for one number alone.
  """

  def values(observation: chex.Array, action: chex.Array) -> chex.Array:
    features = torso(observation)
    features = jnp.broadcast_to(features, (*action.shape[:-1], features.shape[-1]))
    inputs = jnp.concatenate([features, action], axis=-1)
    # One after the other: as fast on a CPU as one batch of matrix products.
    heads = jnp.stack(
      [
        hk.nets.MLP([*hidden_sizes, outputs or 1], name=f'critic_{i}')(inputs)
        for i in range(count)
      ]
    )
    return heads if outputs else heads[..., 0]

  return values


def td_errors(
  values: chex.Array, reward: chex.Array, discount: chex.Array, next_value: chex.Array
) -> chex.Array:
  """Target minus value for each of N critics, `[N, B]`, all with the same target.

  Args:
    values: `[N, B]`, of the actions that were taken.
    reward: `[B]`.
    discount: `[B]`, 0 past a terminal step.
    next_value: `[B]`, of what comes then; no gradient goes into it.
  """
  each = jax.vmap(import_rlax().td_learning)
  errors: chex.Array = jax.vmap(each, (0, None, None, None))(
    values, reward, discount, next_value
  )
  return errors
