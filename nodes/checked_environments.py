"""What is said of an environment that goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dm_env
import numpy as np
import numpy.typing as npt

from callsheet.errors import CallsheetError, EnvironmentFailed

if TYPE_CHECKING:
  from callsheet.agents.base import EnvironmentSpec
  from callsheet.nodes.environments import VectorEnvironment

Array = npt.NDArray[Any]


class CheckedVector:
  """Says of an environment that goes wrong which one it is, and where.

  Args:
    environment: is stepped.
    name: of the environment, for messages.
    seed: that it was made with, for messages.
  """

  def __init__(self, environment: VectorEnvironment, name: str, seed: int) -> None:
    self._environment = environment
    self._name, self._seed = name, seed
    self._steps = 0

  @property
  def num_environments(self) -> int:
    return self._environment.num_environments

  def spec(self) -> EnvironmentSpec:
    return self._environment.spec()

  def reset(self) -> dm_env.TimeStep:
    """See `VectorEnvironment`.

    Raises:
      EnvironmentFailed: the environment raised something, or showed what is no number.
    """
    try:
      time_step = self._environment.reset()
    except CallsheetError:
      raise
    except Exception as error:
      raise EnvironmentFailed(f'{self._where("reset")} raised {told(error)}') from error
    return self._checked(time_step, 'reset')

  def step(self, action: Array) -> dm_env.TimeStep:
    """See `VectorEnvironment`; raises as `reset` does."""
    self._steps += 1
    try:
      time_step = self._environment.step(action)
    except CallsheetError:
      raise
    except Exception as error:
      raise EnvironmentFailed(f'{self._where("step")} raised {told(error)}') from error
    return self._checked(time_step, 'step')

  def close(self) -> None:
    self._environment.close()

  def _checked(self, time_step: dm_env.TimeStep, call: str) -> dm_env.TimeStep:
    if not np.isfinite(time_step.reward).all():
      raise self._no_number('reward', time_step.reward, call)
    seen = time_step.observation
    if seen.dtype.kind == 'f' and not np.isfinite(seen).all():
      raise self._no_number('observation', seen, call)
    return time_step

  def _no_number(self, what: str, values: Array, call: str) -> EnvironmentFailed:
    index = int(np.argwhere(~np.isfinite(values))[0][0])
    value = values[index][~np.isfinite(values[index])].flat[0]
    return EnvironmentFailed(
      f'{self._where(call)} gave {value} in the {what} of environment {index} of '
      f'{self.num_environments}; mend the environment, or wrap it so that it ends the '
      'episode before its numbers overflow'
    )

  def _where(self, call: str) -> str:
    step = f' {self._steps}' if call == 'step' else ''
    return f'{self._name} (seed {self._seed}): {call}{step}'


def told(error: Exception) -> str:
  """An exception of somebody else's in one line."""
  return f'{type(error).__name__}: {" ".join(str(error).split())}'.removesuffix(': ')
