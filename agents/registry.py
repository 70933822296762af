"""The agents by name, each imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from callsheet.agents.base import Agent
from callsheet.errors import UsageError

# Name: module, function, config.
_AGENTS = {
  'bc': ('callsheet.agents.bc', 'bc', 'BCConfig'),
  'cql': ('callsheet.agents.cql', 'cql', 'CQLConfig'),
  'crr': ('callsheet.agents.crr', 'crr', 'CRRConfig'),
  'd4pg': ('callsheet.agents.d4pg', 'd4pg', 'D4PGConfig'),
  'ddpg': ('callsheet.agents.td3', 'ddpg', 'DDPGConfig'),
  'dmpo': ('callsheet.agents.mpo', 'dmpo', 'DMPOConfig'),
  'dqn': ('callsheet.agents.dqn', 'dqn', 'DQNConfig'),
  'impala': ('callsheet.agents.impala', 'impala', 'IMPALAConfig'),
  'iql': ('callsheet.agents.iql', 'iql', 'IQLConfig'),
  'mpo': ('callsheet.agents.mpo', 'mpo', 'MPOConfig'),
  'ppo': ('callsheet.agents.ppo', 'ppo', 'PPOConfig'),
  'r2d2': ('callsheet.agents.r2d2', 'r2d2', 'R2D2Config'),
  'rainbow': ('callsheet.agents.dqn', 'rainbow', 'RainbowConfig'),
  'sac': ('callsheet.agents.sac', 'sac', 'SACConfig'),
  'sac_discrete': (
    'callsheet.agents.sac_discrete',
    'sac_discrete',
    'DiscreteSACConfig',
  ),
  'td3': ('callsheet.agents.td3', 'td3', 'TD3Config'),
  'td3_bc': ('callsheet.agents.td3_bc', 'td3_bc', 'TD3BCConfig'),
}
# Those that learn from a dataset alone.
_OFFLINE = frozenset({'bc', 'cql', 'crr', 'iql', 'td3_bc'})


class Entry(NamedTuple):
  """An agent's function `(spec, config) -> Agent`, and its config, a dataclass."""

  make: Callable[..., Agent]
  config: type[Any]


def names() -> tuple[str, ...]:
  """Every name that `find` knows."""
  return tuple(sorted(_AGENTS))


def is_offline(name: str) -> bool:
  """Whether an agent learns from a dataset, and nobody acts but to evaluate."""
  return name in _OFFLINE


def find(name: str) -> Entry:
  """The agent of this name.

  Raises:
    UsageError: there is none.
  """
  if name not in _AGENTS:
    near = difflib.get_close_matches(name, _AGENTS, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise UsageError(f'no agent {name!r}; {hint}there are: {", ".join(names())}')
  module_name, make, config = _AGENTS[name]
  module = importlib.import_module(module_name)
  return Entry(getattr(module, make), getattr(module, config))
