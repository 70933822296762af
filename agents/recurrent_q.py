"""The values of actions by an LSTM: as an actor steps it, and over stored sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from callsheet.agents import cores
from callsheet.agents.base import Params
from callsheet.agents.networks import Torso
from callsheet.agents.sequence_errors import begins

# The action before an episode's first: one-hot it is all zeros.
NO_ACTION = -1


def network(
  torso: Torso, num_actions: int, lstm_size: int, head_sizes: Sequence[int]
) -> hk.Transformed:
  """An LSTM above a torso, below separate streams for value and advantages.

  It takes observations `[T, B, ...]`, the action before each, `[T, B]`, the LSTM's
  state, and where no gradient shall flow into that, `[T, B]`; it gives the values
  `[T, B, A]` and the LSTM's state behind them.
  """

  def head(name: str, size: int) -> hk.nets.MLP:
    return hk.nets.MLP([*head_sizes, size], name=name)

  def unroll(
    observation: jax.Array,
    previous_action: jax.Array,
    state: hk.LSTMState,
    cut: jax.Array,
  ) -> tuple[jax.Array, hk.LSTMState]:
    lstm = hk.LSTM(lstm_size)

    def core(
      inputs: tuple[jax.Array, jax.Array], state: hk.LSTMState
    ) -> tuple[jax.Array, hk.LSTMState]:
      features, cut = inputs
      outputs, state = lstm(features, _cut(state, cut))
      return outputs, state

    features = hk.BatchApply(torso)(observation)
    taken = jax.nn.one_hot(previous_action, num_actions)
    inputs = jnp.concatenate([features, taken], axis=-1)
    outputs, state = hk.dynamic_unroll(core, (inputs, cut), state)
    advantage = head('advantage', num_actions)(outputs)
    value = head('value', 1)(outputs)
    return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True), state

  return hk.without_apply_rng(hk.transform(unroll))


def _cut(state: hk.LSTMState, cut: jax.Array) -> hk.LSTMState:
  """No gradient flows into the rows where `cut`, `[B]`."""
  return jax.tree.map(
    lambda each: jnp.where(cut[:, None], jax.lax.stop_gradient(each), each), state
  )


def stored(lstm_size: int) -> dict[str, specs.Array]:
  """What there was before each step: the LSTM's state, and the action before."""
  before = specs.Array((), np.int32)
  return {**cores.memory_specs(lstm_size), 'previous_action': before}


def unrolled(
  network: hk.Transformed,
  params: Params,
  data: Mapping[str, jax.Array],
  burn_in_length: int,
) -> jax.Array:
  """The values `[B, L + 1, A]` of sequences, from their stored states on.

  No gradient flows into the burn-in, unless the episode begins with the sequence.

  Args:
    network: see `network`.
    params: its.
    data: the columns of `Sequences`, with the extras `stored`.
    burn_in_length: steps of the burn-in.
  """
  observation = jnp.swapaxes(data['observation'], 0, 1)
  before = jnp.concatenate([data['previous_action'][:, :1], data['action']], axis=1).T
  state = hk.LSTMState(data['hidden'][:, 0], data['cell'][:, 0])
  burnt_in = jnp.arange(len(observation))[:, None] == burn_in_length
  values, _ = network.apply(
    params, observation, before, state, burnt_in & ~begins(data)
  )
  return jnp.swapaxes(values, 0, 1)
