"""TD errors over sequences that end with their episode, and the priorities of those.

The columns are those of `callsheet.agents.base.Sequences` that don't cross the ends of
episodes: an item of length l has steps 0 to l - 1, and its last observation is row l.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from dm_env import StepType

from callsheet.agents.rlax_import import import_rlax


def begins(data: Mapping[str, jax.Array]) -> jax.Array:
  """`[B]` bool: an episode begins with the sequence, whose stored state is exact."""
  exact: jax.Array = data['step_type'][:, 0] == StepType.FIRST
  return exact


def learned(data: Mapping[str, jax.Array], burn_in_length: int) -> jax.Array:
  """`[B, L]` bool: the steps that are learned from.

  They are those behind the burn-in; where an episode begins, which needs none, all.
  """
  steps = jnp.arange(data['mask'].shape[1])
  return data['mask'] & (begins(data)[:, None] | (steps >= burn_in_length))


def td_errors(
  values: jax.Array,
  target_values: jax.Array,
  data: Mapping[str, jax.Array],
  *,
  n_step: int,
  discount: float,
  rescale: bool,
) -> jax.Array:
  """Target minus value, `[B, L]`, with gradients of the value alone.

  A target sums up `n_step` rewards, fewer where the sequence ends, and the value of the
  action that is greedy by `values`.

  Args:
    values: `[B, L + 1, A]`, the online network's.
    target_values: `[B, L + 1, A]`, the target network's.
    data: the sequences' columns.
    n_step: rewards in a target.
    discount: the agent's, per step.
    rescale: whether values are those of Kapturowski et al. 2019, section 2.3.
  """
  rlax = import_rlax()
  mask = data['mask']
  # Behind the last row a target finds the last row's value again, as it does in rlax
  # behind a full sequence: a truncated episode goes on, whatever stands there.
  length = jnp.sum(mask, axis=1, keepdims=True)
  rows = jnp.minimum(jnp.arange(mask.shape[1]) + 1, length)[..., None]
  td_error = functools.partial(
    rlax.transformed_n_step_q_learning,
    n=n_step,
    tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR if rescale else rlax.IDENTITY_PAIR,
  )
  errors: jax.Array = jax.vmap(td_error)(
    values[:, :-1],
    data['action'],
    jnp.take_along_axis(target_values, rows, axis=1),
    jnp.argmax(jnp.take_along_axis(values, rows, axis=1), axis=-1),
    jnp.where(mask, data['reward'], 0.0),
    jnp.where(mask, discount * data['discount'], 1.0),
  )
  return errors


def priorities(errors: jax.Array, learned: jax.Array, eta: float) -> jax.Array:
  """`eta max |e| + (1 - eta) mean |e|`, `[B]`: Kapturowski et al. 2019, section 2.3.

  Never zero: a sequence with no error once must stay possible to draw.

  Args:
    errors: TD errors, `[B, L]`.
    learned: `[B, L]` bool, the steps that count.
    eta: the maximum's share.
  """
  absolute = jnp.where(learned, jnp.abs(errors), 0.0)
  mean = jnp.sum(absolute, axis=1) / jnp.maximum(jnp.sum(learned, axis=1), 1)
  return eta * jnp.max(absolute, axis=1) + (1 - eta) * mean + 1e-6
