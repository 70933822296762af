"""What an agent remembers between time steps: an LSTM's state, or nothing.

The carry is a mapping `[B, size]` each, so that it can go along with an action to the
replay, among the table's extras. The functions build their modules anew in every call,
by the same names, so they belong inside of `hk.transform`.
"""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

Memory = dict[str, jax.Array]


def initial(size: int | None, num_environments: int) -> Memory:
  """The carry that an episode begins with: zeros, or nothing at all.

  Args:
    size: of the LSTM; None for none.
    num_environments: B.
  """
  return {
    name: jnp.zeros((num_environments, *spec.shape), jnp.float32)
    for name, spec in memory_specs(size).items()
  }


def memory_specs(size: int | None) -> dict[str, specs.Array]:
  """What an actor has to write, so that a learner can begin anywhere."""
  names = () if size is None else ('hidden', 'cell')
  return {name: specs.Array((size,), np.float32) for name in names}


def step(
  size: int | None, features: jax.Array, memory: Memory
) -> tuple[jax.Array, Memory]:
  """One time step: features `[B, F]` to outputs `[B, size]`, and the next carry."""
  if size is None:
    return features, memory
  outputs, state = hk.LSTM(size)(features, _state(memory))
  return outputs, {'hidden': state.hidden, 'cell': state.cell}


def unroll(
  size: int | None, features: jax.Array, memory: Memory, first: jax.Array
) -> jax.Array:
  """Features `[B, T, F]` to outputs `[B, T, size]`.

  Args:
    size: of the LSTM; None for none.
    features: of T time steps, one behind the other.
    memory: the carry that the first of them is met with.
    first: `[B, T]` bool, where an episode begins: there the carry does, too.
  """
  if size is None:
    return features
  core = hk.ResetCore(hk.LSTM(size))
  inputs = jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), (features, first))
  outputs, _ = hk.dynamic_unroll(core, inputs, _state(memory))
  return jnp.swapaxes(outputs, 0, 1)


def _state(memory: Memory) -> hk.LSTMState:
  return hk.LSTMState(hidden=memory['hidden'], cell=memory['cell'])
