"""EnvPool's environments, stepped in threads of its own (https://envpool.readthedocs.io).

Weng et al. 2022, https://arxiv.org/abs/2206.10558. Only its synchronous mode is used:
an actor steps all of its environments together.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dm_env
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from callsheet.errors import UsageError
from callsheet.imports import one_at_a_time
from callsheet.nodes.atari import AtariVector
from callsheet.nodes.checked_environments import CheckedVector, told
from callsheet.nodes.environments import (
  Array,
  VectorEnvironment,
  check_num_environments,
)
from callsheet.nodes.gymnasium_environments import GymnasiumVector

PREFIX = 'envpool/'

# Machado et al. 2018, as `MakeAtari` has it; a frame each, that `AtariVector` stacks.
_ATARI = {
  'stack_num': 1,
  'repeat_action_probability': 0.25,
  'noop_max': 1,
  'use_fire_reset': False,
  'episodic_life': False,
}


def import_envpool() -> Any:
  """Imports EnvPool on a JAX that it doesn't know.

  Its XLA interface, which nothing here uses, needs what JAX 0.6 has no more: something
  empty stands in for it. So does silence for the farewell of the old gym.
  """
  with one_at_a_time:
    name = 'envpool.python.lax'
    if name not in sys.modules:
      stands_in = types.ModuleType(name)
      vars(stands_in)['XlaMixin'] = type('XlaMixin', (), {})
      sys.modules[name] = stands_in
    with contextlib.redirect_stderr(io.StringIO()):
      return importlib.import_module('envpool')


def list_envpool() -> list[str]:
  """All names, with the family's prefix."""
  return [f'{PREFIX}{name}' for name in import_envpool().list_all_envs()]


class _Vector:
  """What `GymnasiumVector` steps, of a pool that is no `gymnasium.vector.VectorEnv`."""

  metadata: Mapping[str, Any] = {'autoreset_mode': AutoresetMode.NEXT_STEP}

  def __init__(self, pool: Any, num_envs: int) -> None:
    self._pool, self.num_envs = pool, num_envs
    with warnings.catch_warnings():  # Of bounds that are float32 in fact.
      warnings.simplefilter('ignore')
      self.single_action_space: gymnasium.Space[Any] = pool.action_space
      self.single_observation_space: gymnasium.Space[Any] = pool.observation_space
    self.action_space = batch_space(self.single_action_space, num_envs)

  @property
  def unwrapped(self) -> _Vector:
    return self

  def reset(self, seed: object = None) -> tuple[Any, Mapping[str, Any]]:
    """The seed went into the pool's making."""
    observation, info = self._pool.reset()
    return _shown(observation), info

  def step(self, action: Array) -> tuple[Any, Array, Array, Array, Mapping[str, Any]]:
    observation, *rest = self._pool.step(np.ascontiguousarray(action))
    reward, terminated, truncated, info = rest
    return _shown(observation), reward, terminated, truncated, info

  def close(self) -> None:
    """Its threads end with it."""
    self._pool = None


def _shown(observation: Any) -> Any:
  # A tree of arrays; discrete ones come as int32, which Gymnasium's spaces take.
  return dict(observation) if isinstance(observation, Mapping) else observation


class ChannelsLast:
  """Shows pictures `[B, H, W, C]`, as networks want them, instead of `[B, C, H, W]`."""

  def __init__(self, environment: GymnasiumVector) -> None:
    self._environment = environment
    spec = environment.spec()
    shape = spec.observation.shape
    self._spec = spec._replace(
      observation=spec.observation.replace(
        shape=(*shape[1:], shape[0]), minimum=0, maximum=255
      )
    )

  @property
  def num_environments(self) -> int:
    return self._environment.num_environments

  def spec(self) -> Any:
    return self._spec

  def reset(self) -> dm_env.TimeStep:
    return self._turned(self._environment.reset())

  def step(self, action: Array) -> dm_env.TimeStep:
    return self._turned(self._environment.step(action))

  def close(self) -> None:
    self._environment.close()

  def _turned(self, time_step: dm_env.TimeStep) -> dm_env.TimeStep:
    turned = np.ascontiguousarray(np.moveaxis(time_step.observation, 1, -1))
    return time_step._replace(observation=turned)


@dataclass(frozen=True)
class MakeEnvPool:
  """Makes pools of one environment.

  Atari is preprocessed as `MakeAtari` does it: sticky actions, no fire on reset, whole
  games, and four pictures, the newest last.

  Attributes:
    name: `envpool/Pong-v5`.
    arguments: of `envpool.make`, such as `num_threads` of each pool and
      `max_episode_steps`.
    evaluation: true scores, as they are published.
  """

  name: str
  arguments: Mapping[str, Any] = field(default_factory=dict)
  evaluation: bool = False

  def __call__(self, num_environments: int, seed: int) -> VectorEnvironment:
    check_num_environments(num_environments)
    envpool = import_envpool()
    task = self.name.removeprefix(PREFIX)
    atari = type(envpool.make_spec(task)).__name__.startswith('Atari')
    own: dict[str, Any] = {'num_threads': 1, **self.arguments}
    if atari:
      own = {'reward_clip': not self.evaluation, **_ATARI, **own}
    # EnvPool counts on from one number: far from those of the other actors.
    first = np.random.SeedSequence(seed).generate_state(1) >> 1
    try:
      pool = envpool.make(
        task,
        env_type='gymnasium',
        num_envs=num_environments,
        seed=int(first[0]),
        **own,
      )
    except Exception as error:
      given = ''.join(f', {name}={value!r}' for name, value in self.arguments.items())
      raise UsageError(
        f'{self.name} can not be made: envpool.make({task!r}{given}) raised '
        f'{told(error)}'
      ) from error
    vector: Any = _Vector(pool, num_environments)
    made: VectorEnvironment
    try:
      made = AtariVector(vector, seed) if atari else GymnasiumVector(vector, seed)
    except UsageError as error:
      raise UsageError(f'{self.name}: {error}') from None
    shown = made.spec().observation
    if not atari and shown.dtype == np.uint8 and len(shown.shape) == 3:
      made = ChannelsLast(made)  # type: ignore[arg-type]
    return CheckedVector(made, self.name, seed)
