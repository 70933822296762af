"""The environments of dm_control's suite and of bsuite, one at a time, by seed."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from callsheet.errors import UsageError
from callsheet.imports import one_at_a_time
from callsheet.nodes import environment_families
from callsheet.nodes.checked_environments import told


@dataclass(frozen=True)
class MakeDmControl:
  """Makes a task of the suite, which shows what it measures; nothing is rendered.

  Tassa et al. 2018 (https://arxiv.org/abs/1801.00690). An episode is cut off after 1000
  steps, of which each is rewarded with at most 1.

  Attributes:
    name: `dm_control/cartpole-swingup`.
    arguments: of the task, such as `time_limit` in seconds.
    action_repeat: steps that an action is kept for; they are one to the agent.

  Raises:
    UsageError: `action_repeat` is no positive integer.
  """

  name: str
  arguments: Mapping[str, Any] = field(default_factory=dict)
  action_repeat: int = 1

  def __post_init__(self) -> None:
    if not isinstance(self.action_repeat, int) or self.action_repeat < 1:
      raise UsageError(
        f'{self.name} keeps an action for action_repeat steps, a positive integer, '
        f'not {self.action_repeat!r}'
      )

  def __call__(self, seed: int) -> dm_env.Environment:
    environment_families.import_dm_control()
    suite = sys.modules['dm_control.suite']
    domain, _, task = self.name.partition('/')[2].partition('-')
    try:
      made = suite.load(domain, task, {**self.arguments, 'random': seed})
    except TypeError as error:
      raise UsageError(_cant_be_made(self.arguments, error)) from error
    return made if self.action_repeat == 1 else Repeated(made, self.action_repeat)


@dataclass(frozen=True)
class MakeBsuite:
  """Makes an environment of bsuite, and records nothing.

  Osband et al. 2020 (https://arxiv.org/abs/1908.03568). What it shows travels as a
  vector.

  Attributes:
    name: `bsuite/memory_len/0`.
  """

  name: str

  def __call__(self, seed: int) -> dm_env.Environment:
    with one_at_a_time:
      bsuite = importlib.import_module('bsuite.bsuite')
      sweep = importlib.import_module('bsuite.sweep')
    bsuite_id = self.name.partition('/')[2]
    experiment, _ = bsuite.unpack_bsuite_id(bsuite_id)
    settings = dict(sweep.SETTINGS[bsuite_id])
    load = bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[experiment]
    if experiment == 'deep_sea_stochastic':
      # Its own function takes no seed.
      load = importlib.import_module('bsuite.environments.deep_sea').DeepSea
      settings['deterministic'] = False
    if 'seed' in inspect.signature(load).parameters:
      settings['seed'] = seed
    try:
      return Flattened(load(**settings))
    except Exception as error:  # Some download what they show.
      raise UsageError(_cant_be_made(settings, error)) from error


class Repeated(dm_env.Environment):  # type: ignore[misc]
  """Keeps each action for several steps and sums up their rewards.

  The discount is the product of theirs. An episode that ends between them ends there.

  Args:
    environment: whose actions are kept.
    steps: how many there are to an action.
  """

  def __init__(self, environment: dm_env.Environment, steps: int) -> None:
    self._environment, self._steps = environment, steps

  def reset(self) -> dm_env.TimeStep:
    return self._environment.reset()

  def step(self, action: Any) -> dm_env.TimeStep:
    time_step = self._environment.step(action)
    if time_step.first():
      return time_step
    reward, discount = time_step.reward, time_step.discount
    for _ in range(self._steps - 1):
      if time_step.last():
        break
      time_step = self._environment.step(action)
      reward, discount = reward + time_step.reward, discount * time_step.discount
    return time_step._replace(reward=reward, discount=discount)

  def observation_spec(self) -> Any:
    return self._environment.observation_spec()

  def action_spec(self) -> specs.Array:
    return self._environment.action_spec()

  def close(self) -> None:
    self._environment.close()


class Flattened(dm_env.Environment):  # type: ignore[misc]
  """Shows what an environment shows, as a vector.

  Args:
    environment: shows one array.
  """

  def __init__(self, environment: dm_env.Environment) -> None:
    self._environment = environment

  def reset(self) -> dm_env.TimeStep:
    return _flat(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    return _flat(self._environment.step(action))

  def observation_spec(self) -> specs.Array:
    spec = self._environment.observation_spec()
    return specs.Array((int(np.prod(spec.shape)),), spec.dtype, spec.name)

  def action_spec(self) -> specs.Array:
    return self._environment.action_spec()

  def close(self) -> None:
    self._environment.close()


def _flat(time_step: dm_env.TimeStep) -> dm_env.TimeStep:
  return time_step._replace(observation=np.ravel(time_step.observation))


def _cant_be_made(arguments: Mapping[str, Any], error: Exception) -> str:
  given = ', '.join(f'{name}={value!r}' for name, value in arguments.items())
  return f'can not be made with {given or "its defaults"}: {told(error)}'
