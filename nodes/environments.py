"""Environments in batches: the protocol that actors and evaluators step.

One environment's time steps mean what dm_env says (https://github.com/google-deepmind/
dm_env): FIRST, MID ..., LAST, and the step after a LAST is the next episode's FIRST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dm_env
import numpy as np
import numpy.typing as npt
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.observations import PackedArray, pack
from callsheet.errors import CallsheetError, UsageError
from callsheet.nodes.checked_environments import CheckedVector

Array = npt.NDArray[Any]


class VectorEnvironment(Protocol):
  """B environments that step together.

  A time step holds arrays, fresh at every call: `step_type` `[B]` int32 (the values of
  `dm_env.StepType`), `reward` and `discount` `[B]` float32, `observation` `[B, ...]`.
  FIRST has reward 0 and discount 1; LAST has discount 0 after a termination and 1 after
  a truncation; MID has 1, or 0 where nothing that follows shall count, as where a life
  is lost in training. The step after an environment's LAST ignores its action and is
  FIRST.
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
    UsageError: there is none, it takes anything but one array, or it shows anything but
      one array or a mapping of them.
  """

  def __init__(self, environments: Sequence[dm_env.Environment]) -> None:
    check_num_environments(len(environments))
    self._environments = tuple(environments)
    self._action = environments[0].action_spec()
    if not isinstance(self._action, specs.Array):
      raise UsageError(
        f'the action spec is a {type(self._action).__name__}, expected one '
        'dm_env.specs.Array; wrap the environment so that it takes one array'
      )
    self._parts = _parts(environments[0].observation_spec())
    self._spec = EnvironmentSpec(
      _observation_spec(self._parts), _narrow_spec(self._action)
    )
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
      observation=self._observation(
        [time_step.observation for time_step in time_steps]
      ),
    )

  def _observation(self, observations: Sequence[Any]) -> Array:
    spec = self._spec.observation
    if not isinstance(spec, PackedArray):
      return np.array(observations, spec.dtype)
    flat = [_flat(observation) for observation in observations]
    parts = {}
    for name, part in self._parts.items():
      values = np.array([each[name] for each in flat])
      if isinstance(part, specs.DiscreteArray):
        values = np.eye(part.num_values, dtype=np.float32)[values]
      parts[name] = values
    return pack(spec, parts)


@dataclass(frozen=True)
class MakeDmEnv:
  """See `make_dm_env`."""

  make: Callable[[int], dm_env.Environment]
  name: str

  def __call__(self, num_environments: int, seed: int) -> VectorEnvironment:
    check_num_environments(num_environments)
    seeds = np.random.SeedSequence(seed).generate_state(num_environments)
    try:
      vector = DmEnvVector([self.make(int(one)) for one in seeds])
    except CallsheetError as error:
      raise UsageError(f'{self.name}: {error}') from error
    return CheckedVector(vector, self.name, seed)


def make_dm_env(
  make: Callable[[int], dm_env.Environment], name: str = ''
) -> MakeEnvironment:
  """What actors and evaluators are given, from `seed -> dm_env.Environment`.

  The seed has 32 bits; no two environments of a program have the same.

  Args:
    make: makes one environment.
    name: of the environment, for messages; by default that of `make`.
  """
  return MakeDmEnv(make, name or getattr(make, '__qualname__', str(make)))


def _parts(spec: Any) -> dict[str, specs.Array]:
  """By name; what is one array alone has the name ''."""
  if isinstance(spec, specs.Array):
    return {'': spec}
  flat = _flat(spec) if isinstance(spec, Mapping) else {}
  if flat and all(isinstance(part, specs.Array) for part in flat.values()):
    return flat
  raise UsageError(
    f'the observation spec is a {type(spec).__name__}, expected one dm_env.specs.Array '
    'or a mapping of them; wrap the environment so that it shows one'
  )


def _flat(tree: Any, path: str = '') -> dict[str, Any]:
  """A mapping of mappings as one, with names like 'arm/velocity'."""
  if not isinstance(tree, Mapping):
    return {path: tree}
  flat: dict[str, Any] = {}
  for name, branch in tree.items():
    flat |= _flat(branch, f'{path}/{name}' if path else str(name))
  return flat


def _observation_spec(parts: Mapping[str, specs.Array]) -> specs.Array:
  if '' in parts:
    return _narrow_spec(parts[''])
  return PackedArray(
    {
      name: specs.BoundedArray((part.num_values,), np.float32, 0, 1, name)
      if isinstance(part, specs.DiscreteArray)
      else _narrow_spec(part)
      for name, part in parts.items()
    },
    'observation',
  )


def _narrow_spec(spec: specs.Array) -> specs.Array:
  if isinstance(spec, specs.BoundedArray):
    with np.errstate(over='ignore'):  # The largest float64 is an infinite float32.
      return spec.replace(dtype=narrow(spec.dtype))
  return specs.Array(spec.shape, narrow(spec.dtype), spec.name)
