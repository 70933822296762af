"""Where an actor's actions come from: its own policy, or a server that has many."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent
from callsheet.errors import CallCancelled, ConnectionLost
from callsheet.nodes.playing import check_rows, jit_acting
from callsheet.nodes.variables import ParameterSource, VariableClient

Array = NDArray[Any]


class Acting(Protocol):
  """The actions of one actor."""

  def act(self, observation: Array, first: Array) -> tuple[Array, Any]:
    """The actions `[B, ...]`, and what the policy gives along with them.

    Args:
      observation: `[B, ...]`.
      first: `[B]` bool, where an episode begins: there the policy's carry does, too.
    """
    ...

  def refresh(self) -> None:
    """Has the next actions come of the newest parameters there are."""
    ...

  def parameter_age(self) -> float:
    """Seconds since the parameters in use were known to be the newest."""
    ...


class Acted(NamedTuple):
  """What a server answers.

  Attributes:
    action: `[B, ...]`.
    extras: what the policy gave along with it, a pytree of arrays `[B, ...]`.
    parameter_age: see `Acting`.
  """

  action: Array
  extras: Any
  parameter_age: float


class Inference(Protocol):
  """What acts for actors: an `InferenceServer`."""

  def act(self, actor: int, observation: Array, first: Array) -> Acted:
    """The actions for one actor's observation; see `InferenceServer.act`."""
    ...


class LocalPolicy:
  """Acts in this process, with parameters that it pulls in the background.

  Args:
    agent: whose policy it is.
    learner: gives the parameters.
    update_period: seconds between two pulls of the parameters.
    seed: of the policy.
    num_environments: B.

  Raises:
    UsageError: the agent's carry can't be told apart by environment.
  """

  def __init__(
    self,
    agent: Agent,
    learner: ParameterSource,
    *,
    update_period: float,
    seed: int,
    num_environments: int,
  ) -> None:
    self._policy = jit_acting(agent)
    self._variables = VariableClient(learner, update_period)
    self._carry = agent.initial_carry(num_environments)
    check_rows(agent, 'initial_carry', self._carry, num_environments)
    self._key = jax.random.PRNGKey(seed)

  def act(self, observation: Array, first: Array) -> tuple[Array, Any]:
    """See `Acting`; raises what the learner raised."""
    params = self._variables.params()
    action, self._carry, self._key, extras = self._policy(
      params, self._carry, observation, first, self._key
    )
    return np.asarray(action), extras

  def refresh(self) -> None:
    """See `Acting`; raises what the learner raised."""
    self._variables.refresh()

  def parameter_age(self) -> float:
    """See `Acting`."""
    return self._variables.age()


class RemotePolicy:
  """Acts through a server, which keeps the carry; JAX has nothing to do here.

  A call that is lost with its server is made once more, of the restarted one, where
  the policy begins with its initial carry.

  Args:
    server: acts.
    actor: tells this actor from all others of the server.
  """

  def __init__(self, server: Inference, actor: int) -> None:
    self._server, self._actor = server, actor
    self._age = float('inf')

  def act(self, observation: Array, first: Array) -> tuple[Array, Any]:
    """See `Acting`.

    Raises:
      CallCancelled: this node is stopping, or the server is again.
      ConnectionLost: the server was lost twice.
      Exception: what the server raised.
    """
    try:
      acted = self._server.act(self._actor, observation, first)
    except (CallCancelled, ConnectionLost):
      acted = self._server.act(self._actor, observation, np.ones_like(first))
    self._age = acted.parameter_age
    return acted.action, acted.extras

  def refresh(self) -> None:
    """Leaves it to the server, which pulls its parameters in the background."""

  def parameter_age(self) -> float:
    """See `Acting`."""
    return self._age
