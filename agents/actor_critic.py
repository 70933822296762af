"""A policy and a value of one network, for agents that learn from rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from callsheet.agents import cores
from callsheet.agents.base import Params
from callsheet.agents.cores import Memory
from callsheet.agents.distributions import Categorical, Distribution, Gaussian
from callsheet.agents.networks import Torso

Head = Callable[[jax.Array], Distribution]


class Prediction(NamedTuple):
  """What a network says of observations `[...]`.

  Attributes:
    policy: of the actions.
    value: `[...]`.
  """

  policy: Distribution
  value: jax.Array


class ActorCritic(NamedTuple):
  """The network as pure functions, which share their parameters.

  Attributes:
    init: `(key, observation [B, ...]) -> params`.
    step: `(params, observation [B, ...], memory) -> (prediction [B], memory)`.
    unroll: `(params, observation [B, T, ...], first [B, T], memory) -> prediction
      [B, T]`; `first` and `memory` are those of `cores.unroll`.
  """

  init: Callable[[chex.PRNGKey, jax.Array], Params]
  step: Callable[[Params, jax.Array, Memory], tuple[Prediction, Memory]]
  unroll: Callable[[Params, jax.Array, jax.Array, Memory], Prediction]


def actor_critic(
  torso: Torso, head: Head, lstm_size: int | None, shared: bool = True
) -> ActorCritic:
  """Torso, LSTM if there is one, and a head each for policy and value.

  Args:
    torso: a haiku function, observations `[B, ...]` to features `[B, F]`.
    head: a haiku function, features `[..., F]` to a policy.
    lstm_size: None for no LSTM.
    shared: whether the value has the policy's torso, and not one of its own; with an
      LSTM it always has.
  """

  def features(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    outputs = jnp.asarray(torso(inputs))
    together = shared or lstm_size is not None
    return outputs, outputs if together else jnp.asarray(torso(inputs))

  def heads(for_policy: jax.Array, for_value: jax.Array) -> Prediction:
    value = hk.Linear(1, name='value')(for_value)[..., 0]
    return Prediction(head(for_policy), value)

  def step(inputs: jax.Array, memory: Memory) -> tuple[Prediction, Memory]:
    for_policy, for_value = features(inputs)
    if lstm_size is not None:
      for_policy, memory = cores.step(lstm_size, for_policy, memory)
      for_value = for_policy
    return heads(for_policy, for_value), memory

  def unroll(inputs: jax.Array, first: jax.Array, memory: Memory) -> Prediction:
    for_policy, for_value = hk.BatchApply(features)(inputs)
    if lstm_size is not None:
      for_policy = cores.unroll(lstm_size, for_policy, memory, first)
      for_value = for_policy
    return heads(for_policy, for_value)

  stepped = hk.without_apply_rng(hk.transform(step))
  unrolled = hk.without_apply_rng(hk.transform(unroll))

  def init(key: chex.PRNGKey, observation: jax.Array) -> Params:
    memory = cores.initial(lstm_size, len(observation))
    return stepped.init(key, observation, memory)

  return ActorCritic(init, stepped.apply, unrolled.apply)


def categorical_head(num_actions: int) -> Head:
  """Discrete actions, at first all about as likely."""

  def head(features: jax.Array) -> Categorical:
    return Categorical(hk.Linear(num_actions, w_init=_small(), name='policy')(features))

  return head


def gaussian_head(size: int, initial_std: float) -> Head:
  """Vectors, with a standard deviation that doesn't depend on the observation."""

  def head(features: jax.Array) -> Gaussian:
    mean = hk.Linear(size, w_init=_small(), name='policy')(features)
    start = hk.initializers.Constant(jnp.log(initial_std))
    log_std = hk.get_parameter('log_std', (size,), init=start)
    return Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))

  return head


def rows(prediction: Prediction, part: slice) -> Prediction:
  """Some of the T time steps of a prediction `[B, T]`."""
  chosen: Prediction = jax.tree.map(lambda array: array[:, part], prediction)
  return chosen


def _small() -> hk.initializers.Initializer:
  return hk.initializers.VarianceScaling(1e-4)
