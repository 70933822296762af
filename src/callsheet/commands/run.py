"""`callsheet run AGENT`: trains an agent until its target or its budget is reached."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console

from callsheet.agents import registry
from callsheet.commands import (
  backends,
  dashboard,
  environment_options,
  folders,
  help,
  offline,
  online,
  report,
  seeing,
)
from callsheet.commands.flags import (
  config_names,
  define_config,
  new_flags,
  one_argument,
  parse,
  read_config,
)
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Backend, Terminal, Threads, start
from callsheet.launch.launching import terminated_like_interrupted
from callsheet.launch.observe.gathering import Observing
from callsheet.nodes.named_environments import make_named, target_return
from callsheet.programs.program import Program

USAGE = 'callsheet run dqn --env=CartPole-v1'


def run(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = _flags()
  # An agent's own flags are known once the agent is, wherever it stands.
  known = [argument for argument in argv if argument in registry.names()]
  if known:
    define_config(values, registry.find(known[0]).config)
  arguments = parse(values, argv, known_only=not known)
  if values.help:
    print(_help(values, known))
    return 0
  if not known:
    arguments = [each for each in arguments if not each.startswith('-')]
  name = one_argument(arguments, f'agent ({", ".join(registry.names())})', USAGE)
  run = _prepare(name, values)
  plan = run.program.plan()
  if values.dry_run:
    print(backends.dry_run(run.backend, plan))
    return 0
  folder = folders.make(run.folder, run.config)
  backend = run.backend
  console = Console(highlight=False)
  console.print(
    f'{run.title}, as {backend.name}, {run.source}: {run.folder}', soft_wrap=True
  )
  if values.detach:
    console.print(backends.submit(backend, plan), soft_wrap=True)
    return 0
  observing = Observing(folder.path, backend.name)
  try:
    with (
      terminated_like_interrupted(),
      observing,
      start(plan, backend, terminal=Terminal(console)) as running,
      seeing.seen(values, running, observing, _printer(console), folder.path),
    ):
      dashboard.follow(
        running,
        running.client('recorder').latest,
        console,
        run.target_return,
        live=backends.keeps_logs(backend),
      )
  except (KeyboardInterrupt, UsageError, NodeFailed) as error:
    # A node that failed has left its log; a run that never began has left nothing.
    refused = not isinstance(error, NodeFailed) or error.refused
    if refused and not any(map(report.has_begun, folders.read_metrics(folder.path))):
      folders.discard(folder)
    else:
      _conclude(run, folder.path, console, observing)
    raise
  _conclude(run, folder.path, console, observing)
  return 0


class _Run(NamedTuple):
  program: Program
  backend: Backend
  title: str
  source: str
  folder: str
  config: dict[str, Any]
  target_return: float | None


def _printer(console: Console) -> Callable[[str], None]:
  return lambda line: console.print(line, soft_wrap=True)


def _conclude(
  run: _Run, directory: str, console: Console, observing: Observing
) -> None:
  rows = folders.read_metrics(directory)
  if rows:
    try:
      report.draw_curve(directory, rows, run.title)
    except OSError as error:
      console.print(f'the learning curve could not be written: {error}', soft_wrap=True)
  if held := observing.bottleneck():
    console.print(held, soft_wrap=True)
  summary = report.summary(run.folder, rows, run.target_return)
  console.print(summary, soft_wrap=True)


def _prepare(name: str, values: flags.FlagValues) -> _Run:
  """Everything that can be refused before anything is started or written."""
  entry, learns_offline = registry.find(name), registry.is_offline(name)
  _check_flags(name, values, learns_offline)
  config = read_config(values, entry.config)
  options = environment_options.read(values.env_options)
  make_environment = make_named(values.env, **options)
  with contextlib.closing(make_environment(1, values.seed)) as probe:
    spec = probe.spec()
  try:
    agent, source = entry.make(spec, config), ''
  except UsageError as error:
    raise UsageError(f'{values.env}: {error}') from error
  if learns_offline:
    # What can't work at all is said before the dataset is read.
    config, source = offline.config_for(values, name, spec, config)
    agent = entry.make(spec, config)
  target = values.target_return
  if target is None:
    target = target_return(values.env)
  now = time.strftime('%Y%m%d-%H%M%S')
  stamp = f'{name}-{values.env.replace("/", "-")}-seed{values.seed}-{now}'
  folder = os.path.join(values.runs_directory, values.name or stamp)
  backend = backends.read(values, os.path.abspath(os.path.join(folder, 'logs')))
  if isinstance(backend, Threads) and values.num_learner_hosts > 1:
    raise UsageError(
      f"--num_learner_hosts={values.num_learner_hosts}: the backend 'threads' has one "
      'process for all; take --backend=processes'
    )
  directory = os.path.abspath(folder)
  make_evaluation = make_named(values.env, evaluation=True, **options)
  if learns_offline:
    program = offline.program(values, agent, make_evaluation, target, directory)
  else:
    program, source = online.program(
      values, agent, make_environment, make_evaluation, target, directory, backend
    )
  described = {
    'agent': name,
    'agent_config': dataclasses.asdict(config),
    'flags': {
      flag: values[flag].value
      for flag in (*_OWN, *(offline.OWN if learns_offline else online.OWN))
    },
    'target_return': target,
    'versions': {
      package: importlib.metadata.version(package)
      for package in ('callsheet', 'jax', 'dm-haiku', 'optax', 'rlax', 'gymnasium')
    },
    'python': platform.python_version(),
  }
  title = f'{name} on {values.env}, seed {values.seed}'
  return _Run(program, backend, title, source, folder, described, target)


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


_OWN = (
  'env',
  'env_options',
  *backends.OWN,
  *seeing.OWN,
  'name',
  'runs_directory',
  'seed',
  'num_learner_hosts',
  'num_episodes',
  'evaluation_period',
  'target_return',
  'updates_per_dispatch',
)


def _help(values: flags.FlagValues, known: list[str]) -> str:
  sections: dict[str, Sequence[str]] = {'the run': _OWN}
  learns_offline = bool(known) and registry.is_offline(known[0])
  if not learns_offline:
    sections['actors and replay'] = online.OWN
  if learns_offline or not known:
    sections['learning from a dataset'] = offline.OWN
  sections |= backends.sections(values)
  for name in known[:1]:
    sections[f'{name} (write None as `none`)'] = config_names(
      registry.find(name).config
    )
  others = '' if known else f'\n\nMore for each agent: {USAGE.split(" --")[0]} --help'
  return help.page(values, USAGE, sections) + others


def _flags() -> flags.FlagValues:
  values = new_flags()
  backends.define(values)
  seeing.define(values)
  online.define(values)
  offline.define(values)

  def string(name: str, default: str | None, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=values)

  def integer(name: str, default: int | None, what: str, low: int = 0) -> None:
    flags.DEFINE_integer(name, default, what, low, flag_values=values)

  string('env', 'CartPole-v1', 'Name of the environment: see `callsheet envs`.')
  string('env_options', None, 'Its own, such as reward_clipping=false,num_threads=2.')
  string('name', None, 'Of the run; agent, environment, seed and time by default.')
  string('runs_directory', 'runs', 'Where the folders of runs are.')
  integer('seed', 0, 'Of everything that is random.')
  integer('num_learner_hosts', 1, 'Processes that the learner is.', 1)
  integer('num_episodes', 20, 'Episodes of one evaluation.', 1)
  integer(
    'updates_per_dispatch',
    None,
    "Learner steps in one call of the device's; none: 16, or 1 of an agent that learns "
    'from its newest policy alone.',
    1,
  )
  flags.DEFINE_float(
    'evaluation_period',
    0.3,
    'Seconds from the end of one evaluation to the next; longer ones leave more of the '
    'cores to actors and learner.',
    lower_bound=0,
    flag_values=values,
  )
  flags.DEFINE_float(
    'target_return',
    None,
    "Mean return that ends the run; the environment's own threshold by default.",
    flag_values=values,
  )
  return values
