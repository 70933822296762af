"""Policies and critics for discrete and for continuous actions, with one face.

An agent that only asks how likely an action is, and what it is worth, needn't know
which kind it has. Discrete actions are numbers `[B]`, continuous ones `[B, A]` in
[-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import chex
import haiku as hk
import jax
import jax.numpy as jnp
from dm_env import specs

from callsheet.agents import checks
from callsheet.agents.actions import Bounds
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.critics import critics
from callsheet.agents.networks import Torso
from callsheet.agents.rlax_import import import_distrax

# Of the logarithm of a Gaussian's deviation, as in IQL's own code.
_LOWEST, _HIGHEST = -5.0, 2.0

Critics = Callable[[chex.Array, chex.Array], chex.Array]


class Distribution(Protocol):
  """Of actions, for each of B observations."""

  def mode(self) -> chex.Array:
    """The likeliest action, `[B, ...]`."""

  def sample(self, key: chex.PRNGKey, count: int) -> jax.Array:
    """So many actions for each observation, `[count, B, ...]`."""

  def log_prob(self, action: chex.Array) -> chex.Array:
    """Of actions `[B, ...]`, `[B]`."""


class Categorical(NamedTuple):
  """Of discrete actions, from logits `[B, A]`."""

  logits: chex.Array

  def mode(self) -> chex.Array:
    """See `Distribution.mode`."""
    return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

  def sample(self, key: chex.PRNGKey, count: int) -> jax.Array:
    """See `Distribution.sample`."""
    shape = (count, *self.logits.shape[:-1])
    return jax.random.categorical(key, self.logits, shape=shape).astype(jnp.int32)

  def log_prob(self, action: chex.Array) -> chex.Array:
    """See `Distribution.log_prob`."""
    log_prob: chex.Array = import_distrax().Categorical(self.logits).log_prob(action)
    return log_prob


class Gaussian(NamedTuple):
  """Of continuous actions: a mean `[B, A]` in (-1, 1), one deviation for all states.

  It isn't squashed, as in IQL: an action at its bound is nothing out of the ordinary.
  Samples are cut off at the bounds.
  """

  mean: chex.Array
  log_std: chex.Array

  def mode(self) -> chex.Array:
    """See `Distribution.mode`."""
    return self.mean

  def sample(self, key: chex.PRNGKey, count: int) -> jax.Array:
    """See `Distribution.sample`."""
    noise = jax.random.normal(key, (count, *self.mean.shape))
    return jnp.clip(self.mean + jnp.exp(self.log_std) * noise, -1, 1)

  def log_prob(self, action: chex.Array) -> chex.Array:
    """See `Distribution.log_prob`."""
    normal = import_distrax().MultivariateNormalDiag(self.mean, jnp.exp(self.log_std))
    log_prob: chex.Array = normal.log_prob(action)
    return log_prob


class Heads(NamedTuple):
  """What depends on the kind of action.

  Attributes:
    policy: features `[B, F]` to a `Distribution`, as a haiku function.
    critics: `(torso, hidden_sizes) -> ` a haiku function of observations `[B, ...]` and
      actions `[..., B, ...]` to the values of two critics, `[2, ..., B]`.
    to_unit: the environment's actions, to those of policy and critics.
    from_unit: back again.
  """

  policy: Callable[[chex.Array], Distribution]
  critics: Callable[[Torso, Sequence[int]], Critics]
  to_unit: Callable[[chex.Array], chex.Array]
  from_unit: Callable[[chex.Array], chex.Array]


def heads(agent: str, spec: EnvironmentSpec) -> Heads:
  """Those for an environment's actions.

  Args:
    agent: for messages.
    spec: of one environment.

  Raises:
    UsageError: the actions are neither discrete nor a vector between bounds.
  """
  if spec.action.dtype.kind in 'iu' or isinstance(spec.action, specs.DiscreteArray):
    return _discrete(checks.num_actions(agent, spec))
  bounds = Bounds.of(agent, spec)
  return Heads(_gaussian(bounds.size), critics, bounds.to_unit, bounds.from_unit)


def discrete_values(
  torso: Torso, hidden_sizes: Sequence[int], num_actions: int, count: int = 2
) -> Callable[[chex.Array], chex.Array]:
  """Observations `[B, ...]` to the values of all actions, `[count, B, A]`."""

  def values(observation: chex.Array) -> chex.Array:
    features = torso(observation)
    return jnp.stack(
      [
        hk.nets.MLP([*hidden_sizes, num_actions], name=f'critic_{i}')(features)
        for i in range(count)
      ]
    )

  return values


def _discrete(num_actions: int) -> Heads:
  def policy(features: chex.Array) -> Distribution:
    return Categorical(hk.Linear(num_actions, name='policy')(features))

  def of_action(torso: Torso, hidden_sizes: Sequence[int]) -> Critics:
    values = discrete_values(torso, hidden_sizes, num_actions)

    def value(observation: chex.Array, action: chex.Array) -> chex.Array:
      chosen = jax.nn.one_hot(action, num_actions)
      return jnp.einsum('nba,...ba->n...b', values(observation), chosen)

    return value

  return Heads(policy, of_action, lambda action: action, lambda action: action)


def _gaussian(size: int) -> Callable[[chex.Array], Distribution]:
  def policy(features: chex.Array) -> Distribution:
    mean = jnp.tanh(hk.Linear(size, name='policy')(features))
    log_std = hk.get_parameter('log_std', (size,), init=jnp.zeros)
    return Gaussian(mean, jnp.clip(log_std, _LOWEST, _HIGHEST))

  return policy
