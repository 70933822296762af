"""What an agent refuses: settings out of range, environments that don't fit it."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError


def refuse(config: Any, name: str, expected: str) -> NoReturn:
  """Raises a `UsageError` on the field `name` of the dataclass `config`."""
  kind = type(config)
  default = kind.__dataclass_fields__[name].default
  raise UsageError(
    f'{kind.__name__}.{name} is {getattr(config, name)!r}, expected {expected}; '
    f'the default: {kind.__name__}({name}={default!r})'
  )


def integer(config: Any, name: str, low: int) -> None:
  """Refuses anything but an integer of at least `low`."""
  value = getattr(config, name)
  if not isinstance(value, int) or isinstance(value, bool) or value < low:
    refuse(config, name, f'an integer of at least {low}')


def number(
  config: Any, name: str, low: float, high: float = math.inf, *, zero: bool = True
) -> None:
  """Refuses anything but a finite number in [low, high], and 0 unless `zero`."""
  value = getattr(config, name)
  real = isinstance(value, int | float) and not isinstance(value, bool)
  if real and math.isfinite(value) and low <= value <= high and (value or zero):
    return
  bounds = f'a number {"of at least" if zero else "above"} {low}'
  refuse(config, name, bounds if high == math.inf else f'{bounds} and at most {high}')


def sizes(config: Any, name: str) -> None:
  """Refuses anything but a tuple of positive integers; it may be empty."""
  value = getattr(config, name)
  if not isinstance(value, tuple) or any(
    not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in value
  ):
    refuse(config, name, 'positive integers')


def off_policy(config: Any) -> None:
  """Refuses what is out of range of the settings that agents with a replay share."""
  for name in ('num_stacked', 'n_step', 'batch_size'):
    integer(config, name, 1)
  for name in ('min_replay_size', 'max_replay_size'):
    integer(config, name, 1)
  for name in ('discount', 'tau'):
    number(config, name, 0, 1, zero=False)
  number(config, 'learning_rate', 0, zero=False)
  number(config, 'adam_epsilon', 0)
  for name in ('max_gradient_norm', 'samples_per_insert'):
    if getattr(config, name) is not None:
      number(config, name, 0, zero=False)
  sizes(config, 'hidden_sizes')
  for name in ('batch_size', 'min_replay_size'):
    if getattr(config, name) > config.max_replay_size:
      refuse(config, name, f'at most max_replay_size, {config.max_replay_size}')


def num_actions(agent: str, spec: EnvironmentSpec) -> int:
  """How many actions there are, counted from 0.

  Raises:
    UsageError: the actions aren't discrete.
  """
  action = spec.action
  if isinstance(action, specs.DiscreteArray):
    return int(action.num_values)
  if (
    isinstance(action, specs.BoundedArray)
    and action.shape == ()
    and np.issubdtype(action.dtype, np.integer)
    and action.minimum == 0
  ):
    return int(action.maximum) + 1
  raise UsageError(
    f'{agent}: the action is {describe(action)}, expected a DiscreteArray; make the '
    'actions discrete in the environment, or take an agent for continuous ones'
  )


def describe(spec: specs.Array) -> str:
  """Kind, shape and dtype in a few words: bounds can fill pages."""
  return f'{type(spec).__name__}(shape={spec.shape}, dtype={spec.dtype})'
