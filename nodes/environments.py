"""Environments in batches: the protocol that actors and evaluators step.

One environment's time steps mean what dm_env says (https://github.com/google-deepmind/
dm_env): FIRST, MID ..., LAST, and the step after a LAST is the next episode's FIRST.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dm_env
import numpy as np
import numpy.typing as npt
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError

Array = npt.NDArray[Any]


class VectorEnvironment(Protocol):
  """B environments that step together.

  A time step holds arrays, fresh at every call: `step_type` `[B]` int32 (the values of
  `dm_env.StepType`), `reward` and `discount` `[B]` float32, `observation` `[B, ...]`.
  FIRST has reward 0 and discount 1; LAST has discount 0 after a termination and 1 after
  a truncation. The step after an environment's LAST ignores its action and is FIRST.
  """

  @property
  def num_environments(self) -> int:
    """B."""

  def spec(self) -> EnvironmentSpec:
    """What one environment, not the batch, shows and takes."""

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode in every environment: FIRST everywhere."""

  def step(self, action: Array) -> dm_env.TimeStep:
    """Steps every environment; before any `reset` it is one.

    Args:
      action: `[B, ...]`.
    """

  def close(self) -> None:
    """Lets go of what the environments hold."""


MakeEnvironment = Callable[[int, int], VectorEnvironment]
"""`(num_environments, seed) -> VectorEnvironment`, the same for the same seed."""


def check_num_environments(num_environments: int) -> None:
  """Raises a `UsageError` unless there is at least one environment."""
  if num_environments < 1:
    raise UsageError(f'num_environments is {num_environments}, expected at least 1')


def narrow(dtype: np.dtype[Any]) -> np.dtype[Any]:
  """What a dtype travels as: 64-bit numbers take 32 bits, as they will in JAX."""
  narrower = {'float64': np.float32, 'int64': np.int32, 'uint64': np.uint32}
  return np.dtype(narrower.get(np.dtype(dtype).name, dtype))


class DmEnvVector:
  """Steps a list of `dm_env.Environment` one after the other.

  Args:
    environments: of one spec, at least one.

  Raises:
    UsageError: there is none, or it shows or takes anything but one array.
  """

  def __init__(self, environments: Sequence[dm_env.Environment]) -> None:
    check_num_environments(len(environments))
    self._environments = tuple(environments)
    self._action = _array_spec(environments[0].action_spec(), 'action')
    observation = _array_spec(environments[0].observation_spec(), 'observation')
    self._spec = EnvironmentSpec(_narrow_spec(observation), _narrow_spec(self._action))
    self._started = False

  @property
  def num_environments(self) -> int:
    return len(self._environments)

  def spec(self) -> EnvironmentSpec:
    return self._spec

  def reset(self) -> dm_env.TimeStep:
    self._started = True
    return self._stack([environment.reset() for environment in self._environments])

  def step(self, action: Array) -> dm_env.TimeStep:
    if not self._started:
      return self.reset()
    actions = np.asarray(action).astype(self._action.dtype)
    pairs = zip(self._environments, actions, strict=True)
    return self._stack([environment.step(taken) for environment, taken in pairs])

  def close(self) -> None:
    for environment in self._environments:
      environment.close()

  def _stack(self, time_steps: Sequence[dm_env.TimeStep]) -> dm_env.TimeStep:
    first = [time_step.first() for time_step in time_steps]
    reward = [time_step.reward for time_step in time_steps]
    discount = [time_step.discount for time_step in time_steps]
    return dm_env.TimeStep(
      step_type=np.array([time_step.step_type for time_step in time_steps], np.int32),
      reward=np.array(np.where(first, 0, reward), np.float32),
      discount=np.array(np.where(first, 1, discount), np.float32),
      observation=np.array(
        [time_step.observation for time_step in time_steps],
        self._spec.observation.dtype,
      ),
    )


@dataclass(frozen=True)
class MakeDmEnv:
  """See `make_dm_env`."""

  make: Callable[[int], dm_env.Environment]

  def __call__(self, num_environments: int, seed: int) -> VectorEnvironment:
    check_num_environments(num_environments)
    seeds = np.random.SeedSequence(seed).generate_state(num_environments)
    return DmEnvVector([self.make(int(one)) for one in seeds])


def make_dm_env(make: Callable[[int], dm_env.Environment]) -> MakeEnvironment:
  """What actors and evaluators are given, from `seed -> dm_env.Environment`.

  The seed has 32 bits; no two environments of a program have the same.
  """
  return MakeDmEnv(make)


def _array_spec(spec: Any, what: str) -> specs.Array:
  if not isinstance(spec, specs.Array):
    raise UsageError(
      f'the {what} spec is a {type(spec).__name__}, expected one dm_env.specs.Array; '
      'wrap the environment so that it is concatenated into one array'
    )
  return spec


def _narrow_spec(spec: specs.Array) -> specs.Array:
  if isinstance(spec, specs.BoundedArray):
    return spec.replace(dtype=narrow(spec.dtype))
  return specs.Array(spec.shape, narrow(spec.dtype), spec.name)
