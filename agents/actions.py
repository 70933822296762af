"""Continuous actions between the environment's bounds and [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import chex
import jax.numpy as jnp
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.checks import describe
from callsheet.errors import UsageError


@dataclass(frozen=True, eq=False)
class Bounds:
  """What one action may be.

  Attributes:
    low: `[A]` float32.
    high: `[A]` float32.
  """

  low: NDArray[np.float32]
  high: NDArray[np.float32]

  @classmethod
  def of(cls, agent: str, spec: EnvironmentSpec) -> Bounds:
    """The bounds of an environment's actions.

    Args:
      agent: for messages.
      spec: of one environment.

    Raises:
      UsageError: the actions aren't vectors of real numbers, or unbounded.
    """
    action = spec.action
    if len(action.shape) != 1 or action.dtype.kind != 'f':
      discrete = action.dtype.kind in 'iu'
      raise UsageError(
        f'{agent}: the action is {describe(action)}, expected a vector of real numbers '
        'between bounds; take an agent for '
        f'{"discrete" if discrete else "such"} actions, or wrap the environment so '
        'that it takes a vector'
      )
    if not isinstance(action, specs.BoundedArray):
      raise _unbounded(agent, action)
    low, high = (
      np.broadcast_to(bound, action.shape).astype(np.float32)
      for bound in (action.minimum, action.maximum)
    )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
      raise _unbounded(agent, action)
    return cls(low, high)

  @property
  def size(self) -> int:
    """A, the numbers in an action."""
    return len(self.low)

  @property
  def spec(self) -> specs.BoundedArray:
    """Of the actions that an agent chooses, float32."""
    return specs.BoundedArray(self.low.shape, np.float32, self.low, self.high)

  def from_unit(self, unit: chex.Array) -> chex.Array:
    """Actions `[..., A]` of the environment, from those in [-1, 1]."""
    action: chex.Array = self.low + (unit + 1) * 0.5 * (self.high - self.low)
    return jnp.clip(action, self.low, self.high)

  def to_unit(self, action: chex.Array) -> chex.Array:
    """Back again: actions `[..., A]` of the environment, to [-1, 1]."""
    unit: chex.Array = 2 * (action - self.low) / (self.high - self.low) - 1
    return jnp.clip(unit, -1, 1)


def _unbounded(agent: str, action: specs.Array) -> UsageError:
  return UsageError(
    f'{agent}: the action {describe(action)} has no finite bounds, or empty ones, '
    'between which it could be chosen; bound it in the environment: '
    'gymnasium.wrappers.RescaleAction(environment, -1, 1), or a ClipAction of your own '
    'bounds'
  )
