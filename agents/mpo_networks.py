"""The networks of MPO: a Gaussian policy, and a critic that values many actions."""

from __future__ import annotations

from collections.abc import Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from callsheet.agents.mpo_losses import Gaussian
from callsheet.agents.networks import Torso


def policy_network(
  torso: Torso,
  sizes: Sequence[int],
  num_numbers: int,
  *,
  layer_norm: bool,
  tanh_mean: bool,
  initial_stddev: float,
  min_stddev: float,
) -> hk.Transformed:
  """Observations `[B, ...]` to a `Gaussian` of `[B, A]`.

  Args:
    torso: below the dense layers.
    sizes: of the dense layers.
    num_numbers: A, in an action.
    layer_norm: see `_dense`.
    tanh_mean: whether the mean is squashed into [-1, 1].
    initial_stddev: about what it is before it learns.
    min_stddev: what it never falls below.
  """

  def policy(observation: chex.Array) -> Gaussian:
    features = _dense(sizes, layer_norm, torso(observation))
    # Nearly the same everywhere at first: the mean is in the middle of the bounds.
    small = hk.initializers.VarianceScaling(1e-4)
    mean = hk.Linear(num_numbers, w_init=small, name='mean')(features)
    spread = hk.Linear(num_numbers, w_init=small, name='stddev')(features)
    scale = initial_stddev / jax.nn.softplus(0.0)
    stddev = jax.nn.softplus(spread) * scale + min_stddev
    return Gaussian(jnp.tanh(mean) if tanh_mean else mean, stddev)

  return hk.without_apply_rng(hk.transform(policy))


def critic_network(
  torso: Torso, sizes: Sequence[int], num_outputs: int, *, layer_norm: bool
) -> hk.Transformed:
  """Observations `[B, ...]` and actions `[..., B, A]` to `[..., B, num_outputs]`.

  Args:
    torso: below the dense layers, of the observation alone.
    sizes: of the dense layers.
    num_outputs: 1, or a number of atoms.
    layer_norm: see `_dense`.
  """

  def critic(observation: chex.Array, action: chex.Array) -> chex.Array:
    features = torso(observation)
    features = jnp.broadcast_to(features, (*action.shape[:-1], features.shape[-1]))
    # What an action has outside of the bounds is never played.
    inputs = jnp.concatenate([features, jnp.clip(action, -1, 1)], axis=-1)
    value: chex.Array = hk.Linear(num_outputs, name='value')(
      _dense(sizes, layer_norm, inputs)
    )
    return value

  return hk.without_apply_rng(hk.transform(critic))


def expected_values(atoms: chex.Array | None, outputs: chex.Array) -> chex.Array:
  """What a critic's outputs stand for, `[...]`.

  Args:
    atoms: returns `[K]`, where the outputs are logits over them.
    outputs: `[..., K]`, or `[..., 1]`, the value itself.
  """
  if atoms is None:
    return jnp.squeeze(outputs, -1)
  return jax.nn.softmax(outputs) @ atoms


def _dense(sizes: Sequence[int], layer_norm: bool, inputs: chex.Array) -> chex.Array:
  """Layers with ELU behind each; `layer_norm` has the first normalized, and a tanh."""
  first, *others = sizes
  outputs: chex.Array = hk.Linear(first)(inputs)
  if layer_norm:
    outputs = jnp.tanh(hk.LayerNorm(-1, True, True)(outputs))
  else:
    outputs = jax.nn.elu(outputs)
  for size in others:
    outputs = jax.nn.elu(hk.Linear(size)(outputs))
  return outputs
