"""Every environment by its name: `CartPole-v1`, `ALE/Pong-v5`, `bsuite/catch/0`.

What follows a family's prefix is its own name for the environment; `callsheet envs`
lists them. Names without a prefix are Gymnasium's, `module:id` among them.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import gymnasium

from callsheet.errors import UsageError
from callsheet.nodes.atari import MakeAtari
from callsheet.nodes.environment_families import FAMILIES, family_of, near
from callsheet.nodes.environments import MakeEnvironment, make_dm_env
from callsheet.nodes.envpool_environments import MakeEnvPool
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.nodes.suites import MakeBsuite, MakeDmControl

MINATAR_STEPS = 5000
"""MinAtar knows no end but a game's own, and a good player of Breakout meets none; this
is twice the length that its Freeway has."""


def make_named(
  name: str, *, evaluation: bool = False, **options: Any
) -> MakeEnvironment:
  """What actors and evaluators are given, from a name.

  Args:
    name: of the environment.
    evaluation: whether returns shall be those that are published; else an environment
      may change its rewards for training, as Atari's are clipped.
    **options: of a family's own:
      `ALE/`: see `MakeAtari`.
      `MinAtar/`: `sticky_action_prob` 0.1, `difficulty_ramping` True, and
        `max_episode_steps` `MINATAR_STEPS`, after which an episode is cut off.
      `dm_control/`: `action_repeat` 1, the steps that an action is kept for, and those
        of the task, such as `time_limit` in seconds.
      `envpool/`: of `envpool.make`, such as `num_threads`.
      Gymnasium: see `make_gymnasium`.

  Raises:
    UsageError: no such environment or option, or something isn't installed.
  """
  family = family_of(name)
  family.require(name)
  if not family.prefix:
    return _gymnasium(name, options)
  known = family.names()
  if name not in known and not (family.prefix == 'MinAtar/' and _older(name, known)):
    raise UsageError(f'no environment {name!r}: {near(name, known)}')
  match family.prefix:
    case 'ALE/':
      fields = [each.name for each in dataclasses.fields(MakeAtari)]
      _check_options(name, options, [*fields[1:-1]])
      return MakeAtari(name, **options, evaluation=evaluation)
    case 'MinAtar/':
      own = ['sticky_action_prob', 'difficulty_ramping', 'max_episode_steps']
      _check_options(name, options, own)
      return make_gymnasium(name, **{'max_episode_steps': MINATAR_STEPS, **options})
    case 'dm_control/':
      repeat = options.pop('action_repeat', 1)
      return make_dm_env(MakeDmControl(name, options, repeat), name)
    case 'envpool/':
      return MakeEnvPool(name, options, evaluation)
    case _:
      _check_options(name, options, [])
      return make_dm_env(MakeBsuite(name), name)


def target_return(name: str) -> float | None:
  """The mean return at which the environment counts as solved, if it says so."""
  if family_of(name).prefix:
    return None
  return gymnasium.spec(name.rpartition(':')[2]).reward_threshold


def _gymnasium(name: str, options: dict[str, Any]) -> MakeEnvironment:
  try:
    return make_gymnasium(name, **options)
  except UsageError:
    if ':' in name or _exists(name):
      raise
    known = [each for family in FAMILIES for each in family.names()]
    raise UsageError(f'no environment {name!r}: {near(name, known)}') from None


def _exists(name: str) -> bool:
  try:
    gymnasium.spec(name)
  except gymnasium.error.Error:
    return False
  return True


def _older(name: str, known: Sequence[str]) -> bool:
  """MinAtar's v0 has all six actions in each game."""
  return name.endswith('-v0') and f'{name[:-1]}1' in known


def _check_options(name: str, options: dict[str, Any], known: Sequence[str]) -> None:
  for option in options:
    if option not in known:
      close = difflib.get_close_matches(option, known, n=1)
      hint = f'did you mean {close[0]}? ' if close else ''
      raise UsageError(
        f'{name} has no option {option!r}; {hint}it has '
        f'{", ".join(known) if known else "none"}'
      )
