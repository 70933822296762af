"""Gymnasium's environments as a `VectorEnvironment` (https://gymnasium.farama.org)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dm_env
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes import environment_families
from callsheet.nodes.checked_environments import CheckedVector, told
from callsheet.nodes.environments import (
  Array,
  MakeEnvironment,
  VectorEnvironment,
  check_num_environments,
)
from callsheet.nodes.gymnasium_spaces import batch_to_array, space_to_spec


class GymnasiumVector:
  """Steps a `gymnasium.vector.VectorEnv` as a `VectorEnvironment`.

  Args:
    environment: one that resets an ended episode with the next step
      (`AutoresetMode.NEXT_STEP`), which is what dm_env means too.
    seed: of all randomness in the environments; or one of each.

  Raises:
    UsageError: the environment resets otherwise, or has a space without a spec.

  Attributes:
    info: what came along with the last time step.
  """

  def __init__(self, environment: VectorEnv[Any, Any, Any], seed: int | Array) -> None:
    mode = environment.metadata.get('autoreset_mode')
    if mode is not AutoresetMode.NEXT_STEP:
      raise UsageError(
        f'{environment} has autoreset mode {mode}, expected AutoresetMode.NEXT_STEP'
      )
    self._environment = environment
    self._spec = EnvironmentSpec(
      space_to_spec(environment.single_observation_space, 'observation'),
      space_to_spec(environment.single_action_space, 'action'),
    )
    self._first_action = getattr(environment.single_action_space, 'start', 0)
    self._seed: Any = _seeds(environment, seed) if isinstance(seed, int) else seed
    self._ended: Array | None = None
    self.info: Mapping[str, Any] = {}

  @property
  def num_environments(self) -> int:
    return int(self._environment.num_envs)

  def spec(self) -> EnvironmentSpec:
    return self._spec

  def reset(self) -> dm_env.TimeStep:
    # Seeded once: a later reset goes on with the same streams of random numbers.
    observation, self.info = self._environment.reset(seed=self._seed)
    self._seed = None
    count = self.num_environments
    self._ended = np.zeros(count, bool)
    return dm_env.TimeStep(
      step_type=np.full(count, dm_env.StepType.FIRST, np.int32),
      reward=np.zeros(count, np.float32),
      discount=np.ones(count, np.float32),
      observation=self._observation(observation),
    )

  def step(self, action: Array) -> dm_env.TimeStep:
    if self._ended is None:
      return self.reset()
    first = self._ended
    taken = np.asarray(action).astype(self._environment.action_space.dtype)
    observation, reward, terminated, truncated, self.info = self._environment.step(
      taken + self._first_action if self._first_action else taken
    )
    self._ended = np.logical_or(terminated, truncated) & ~first
    step_type = np.full(first.shape, dm_env.StepType.MID, np.int32)
    step_type[first] = dm_env.StepType.FIRST
    step_type[self._ended] = dm_env.StepType.LAST
    return dm_env.TimeStep(
      step_type=step_type,
      reward=np.where(first, 0, reward).astype(np.float32),
      discount=np.where(terminated & ~first, 0, 1).astype(np.float32),
      observation=self._observation(observation),
    )

  def close(self) -> None:
    self._environment.close()

  def _observation(self, observation: Any) -> Array:
    space = self._environment.single_observation_space
    return batch_to_array(space, self._spec.observation, observation)


@dataclass(frozen=True)
class MakeGymnasium:
  """See `make_gymnasium`."""

  env_id: str
  arguments: Mapping[str, Any] = field(default_factory=dict)

  def __call__(self, num_environments: int, seed: int) -> VectorEnvironment:
    check_num_environments(num_environments)
    environment = self._make(num_environments, self.arguments)
    try:
      if (
        'vectorization_mode' not in self.arguments
        and environment.metadata.get('autoreset_mode') is not AutoresetMode.NEXT_STEP
      ):
        environment.close()
        sync = {**self.arguments, 'vectorization_mode': 'sync'}
        environment = self._make(num_environments, sync)
      return CheckedVector(GymnasiumVector(environment, seed), self.env_id, seed)
    except UsageError as error:
      environment.close()
      raise UsageError(f'{self.env_id}: {error}') from None

  def filmed(self, seed: int) -> tuple[VectorEnvironment, Callable[[], Array], float]:
    """One environment, what gives its picture now, and how many a second there are.

    Raises:
      UsageError: it can't be made, or has no pictures.
    """
    arguments = {
      **self.arguments,
      'vectorization_mode': 'sync',
      'render_mode': 'rgb_array',
    }
    environment = self._make(1, arguments)

    def picture() -> Array:
      try:
        [shown] = environment.render() or [None]
        return np.asarray(shown, np.uint8)
      except Exception as error:
        raise UsageError(f'{self.env_id} shows no picture: {told(error)}') from error

    rate = float(environment.metadata.get('render_fps') or 30)
    return GymnasiumVector(environment, seed), picture, rate

  def _make(
    self, num_environments: int, arguments: Mapping[str, Any]
  ) -> VectorEnv[Any, Any, Any]:
    _find(self.env_id)  # In a process of its own, `module:id` isn't registered yet.
    if 'wrappers' in arguments:
      arguments = {'vectorization_mode': 'sync', **arguments}
    try:
      return gymnasium.make_vec(self.env_id, num_environments, **arguments)
    except Exception as error:
      given = ''.join(f', {name}={value!r}' for name, value in self.arguments.items())
      raise UsageError(
        f'{self.env_id} can not be made: make_gymnasium({self.env_id!r}{given}) raised '
        f'{told(error)}'
      ) from error


def make_gymnasium(env_id: str, **arguments: Any) -> MakeEnvironment:
  """What actors and evaluators are given, from Gymnasium's registry.

  Args:
    env_id: `CartPole-v1`; `module:id` imports the module that registers it first.
    **arguments: of `gymnasium.make_vec`: `wrappers=[FlattenObservation]`, the
      environment's own, or `vectorization_mode`; without that the environment's own
      vectorised form if it has one, else one environment after the other ('sync').

  Raises:
    UsageError: no such environment. The factory raises it too: a dependency of the
      environment isn't installed, or it has a space without a spec.
  """
  _find(env_id)
  return MakeGymnasium(env_id, arguments)


def _seeds(environment: VectorEnv[Any, Any, Any], seed: int) -> int | list[int]:
  # Given one number, gymnasium seeds its environments with seed, seed + 1, ...: two
  # actors with neighbouring seeds would share all but one of their episodes.
  sequence = np.random.SeedSequence(seed)
  if isinstance(environment.unwrapped, gymnasium.vector.SyncVectorEnv):
    return [int(one) for one in sequence.generate_state(environment.num_envs)]
  return int(sequence.generate_state(1)[0])


def _find(env_id: str) -> None:
  module, _, name = env_id.rpartition(':')
  if module:
    try:
      importlib.import_module(module)
    except ImportError as error:
      raise UsageError(f"{env_id!r}: can't import {module!r}: {error}") from error
  environment_families.register(name)
  try:
    gymnasium.spec(name)
  except gymnasium.error.Error:
    hint = environment_families.near(name, gymnasium.registry)
    raise UsageError(f'no Gymnasium environment {env_id!r}: {hint}') from None
