"""Playing a policy in a batch of environments."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import chex
import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent, Carry, Params, Policy
from callsheet.errors import UsageError
from callsheet.nodes.environments import VectorEnvironment

Act = Callable[
  [Params, Carry, Any, chex.PRNGKey], tuple[chex.Array, Carry, chex.PRNGKey]
]
ActWithExtras = Callable[
  [Params, Carry, Any, Any, chex.PRNGKey],
  tuple[chex.Array, Carry, chex.PRNGKey, Any],
]


def jit_policy(policy: Policy) -> Act:
  """`(params, carry, observation, key) -> (action, carry, key)`, one dispatch each."""

  @jax.jit
  def act(
    params: Params, carry: Carry, observation: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Carry, chex.PRNGKey]:
    key, now = jax.random.split(key)
    action, carry, _ = policy(params, carry, observation, now)
    return action, carry, key

  return act


def jit_acting(agent: Agent) -> ActWithExtras:
  """`(params, carry, observation, first, key) -> (action, carry, key, extras)`.

  It is the agent's policy as it acts on and on: where an episode begins, `first` `[B]`,
  its environment's row of the carry begins anew.
  """

  @jax.jit
  def act(
    params: Params, carry: Carry, observation: Any, first: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Carry, chex.PRNGKey, Any]:
    key, now = jax.random.split(key)
    carry = begun(agent.initial_carry(first.shape[0]), carry, first)
    action, carry, extras = agent.policy(params, carry, observation, now)
    return action, carry, key, extras

  return act


def begun(initial: Carry, carry: Carry, first: Any) -> Carry:
  """The carry, its rows the initial ones where an episode begins, `first` `[B]`."""

  def rows(new: chex.Array, old: chex.Array) -> chex.Array:
    return jnp.where(jnp.reshape(first, (-1, *[1] * (jnp.ndim(old) - 1))), new, old)

  return jax.tree.map(rows, initial, carry)


def check_rows(agent: Agent, what: str, tree: Any, length: int) -> None:
  """Raises a `UsageError` unless each array has a row for each of B environments."""
  for leaf in jax.tree.leaves(tree):
    if np.shape(leaf)[:1] != (length,):
      raise UsageError(
        f'agent {agent.name!r}: its {what} for {length} environments has an array of '
        f'shape {np.shape(leaf)}, expected [{length}, ...]: each environment needs '
        'a row of its own'
      )


class EpisodeReturns:
  """The undiscounted returns of episodes as they end.

  Args:
    num_environments: B.
  """

  def __init__(self, num_environments: int) -> None:
    self._so_far = np.zeros(num_environments, np.float64)

  def observe(self, time_step: dm_env.TimeStep) -> list[float]:
    """Takes in one time step of all environments; returns what ended with it."""
    self._so_far += time_step.reward
    ended = time_step.step_type == dm_env.StepType.LAST
    returns: list[float] = self._so_far[ended].tolist()
    self._so_far[ended] = 0
    return returns


def play_episodes(
  act: Act,
  params: Params,
  carry: Carry,
  environment: VectorEnvironment,
  key: chex.PRNGKey,
  stop: threading.Event,
) -> NDArray[np.float64] | None:
  """Plays one episode in each environment.

  Each counts its first episode alone: taking whichever end first would favour the
  short ones.

  Args:
    act: from `jit_policy`.
    params: the policy's.
    carry: the initial one for B environments.
    environment: B environments; they are reset first.
    key: of the policy.
    stop: ends it early.

  Returns:
    The undiscounted returns, `[B]`; None if the stop came first.
  """
  time_step = environment.reset()
  returns = np.zeros(environment.num_environments, np.float64)
  playing = np.ones(environment.num_environments, bool)
  while playing.any():
    if stop.is_set():
      return None
    action, carry, key = act(params, carry, time_step.observation, key)
    time_step = environment.step(np.asarray(action))
    returns += np.where(playing, time_step.reward, 0)
    playing &= time_step.step_type != dm_env.StepType.LAST
  return returns
