"""From a command line to a program: everything before something is started."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import time
from typing import Any, NamedTuple

from absl import flags

from callsheet.agents import registry
from callsheet.agents.base import Agent
from callsheet.commands import (
  backends,
  environment_options,
  offline,
  online,
  run_flags,
  sinks,
  snapshot_flags,
)
from callsheet.commands.flags import read_config
from callsheet.errors import UsageError
from callsheet.launch import Backend, Threads
from callsheet.nodes.environment_families import family_of
from callsheet.nodes.named_environments import make_named, target_return
from callsheet.programs.program import Program

_PACKAGES = ('callsheet', 'jax', 'dm-haiku', 'optax', 'rlax', 'gymnasium')


class Resumed(NamedTuple):
  """A run that goes on.

  Attributes:
    folder: of the run, as it was given.
    saved: its `config.json`.
    agent_config: the agent's.
    life: how often it was begun before.
  """

  folder: str
  saved: dict[str, Any]
  agent_config: Any
  life: int


class Run(NamedTuple):
  """What was prepared.

  Attributes:
    program: to launch.
    backend: how.
    title: agent, environment and seed.
    source: of what it learns from, in words.
    folder: of the run.
    config: for its `config.json`.
    target_return: that it is to reach; None for none.
    agent: what is trained.
    resumed: whether it goes on.
    acts: whether it has actors.
    said: lines on how.
  """

  program: Program
  backend: Backend
  title: str
  source: str
  folder: str
  config: dict[str, Any]
  target_return: float | None
  agent: Agent
  resumed: bool = False
  acts: bool = True
  said: tuple[str, ...] = ()


def prepare(name: str, values: flags.FlagValues, resumed: Resumed | None = None) -> Run:
  """Everything that can be refused before anything is started or written.

  Args:
    name: the agent's.
    values: the parsed flags.
    resumed: the run that goes on; None for a new one.

  Raises:
    UsageError: it can't be met.
  """
  entry, learns_offline = registry.find(name), registry.is_offline(name)
  _check_flags(name, values, learns_offline)
  taken = snapshot_flags.read(values)
  if resumed is None:
    config = read_config(values, entry.config)
  else:
    config = resumed.agent_config
  options = environment_options.read(values.env_options)
  make_environment = make_named(values.env, **options)
  with contextlib.closing(make_environment(1, values.seed)) as probe:
    spec = probe.spec()
  try:
    agent, source = entry.make(spec, config), ''
  except UsageError as error:
    raise UsageError(f'{values.env}: {error}') from error
  if learns_offline and resumed is None:
    # What can't work at all is said before the dataset is read.
    config, source = offline.config_for(values, name, spec, config)
    agent = entry.make(spec, config)
  target = values.target_return
  if target is None:
    target = target_return(values.env)
  now = time.strftime('%Y%m%d-%H%M%S')
  stamp = f'{name}-{values.env.replace("/", "-")}-seed{values.seed}-{now}'
  folder = os.path.join(values.runs_directory, values.name or stamp)
  folder = folder if resumed is None else resumed.folder
  saved = {} if resumed is None else resumed.saved
  backend = backends.read(values, os.path.abspath(os.path.join(folder, 'logs')))
  if isinstance(backend, Threads) and values.num_learner_hosts > 1:
    raise UsageError(
      f"--num_learner_hosts={values.num_learner_hosts}: the backend 'threads' has one "
      'process for all; take --backend=processes'
    )
  directory = os.path.abspath(folder)
  room = saved.get('replay_room', 0)
  if not learns_offline:
    saved = {**saved, 'replay_room': online.room(values, room)}
  described = {
    **saved,
    'agent': name,
    'agent_config': dataclasses.asdict(config),
    'flags': {
      flag: values[flag].value
      for flag in (*run_flags.OWN, *(offline.OWN if learns_offline else online.OWN))
    },
    'backend_options': backends.given(values),
    'life': 0 if resumed is None else resumed.life,
    'target_return': target,
    'versions': {
      package: importlib.metadata.version(package)
      for package in (*_PACKAGES, family_of(values.env).distribution)
    },
    'python': platform.python_version(),
  }
  chosen = sinks.read(values, directory, described, not backends.elsewhere(backend))
  make_evaluation = make_named(values.env, evaluation=True, **options)
  if learns_offline:
    source = source or f'from {values.dataset}'
    program = offline.program(
      values, agent, make_evaluation, target, directory, taken, chosen
    )
  else:
    program, source = online.program(
      values,
      agent,
      make_environment,
      make_evaluation,
      target,
      directory,
      backend,
      taken,
      0 if resumed is None else resumed.life,
      room,
      chosen,
    )
  title = f'{name} on {values.env}, seed {values.seed}'
  return Run(
    program,
    backend,
    title,
    source,
    folder,
    described,
    target,
    agent,
    resumed is not None,
    not learns_offline,
  )


def _check_flags(name: str, values: flags.FlagValues, learns_offline: bool) -> None:
  others, why = (
    (online.OWN, 'learns from a dataset, and nobody acts')
    if learns_offline
    else (offline.OWN, 'learns from what its actors do, not from a dataset')
  )
  given = [flag for flag in others if values[flag].present]
  if given:
    offline_agents = ', '.join(filter(registry.is_offline, registry.names()))
    raise UsageError(
      f'--{given[0]}: {name} {why}; leave it out, or take another agent (from a '
      f'dataset learn {offline_agents})'
    )
