"""`callsheet run AGENT`: trains an agent until its target or its budget is reached."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console

from callsheet.agents import registry
from callsheet.agents.step_tables import with_room
from callsheet.commands import (
  backends,
  dashboard,
  environment_options,
  folders,
  help,
  report,
  requirements,
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
from callsheet.nodes import reverb_port
from callsheet.nodes.named_environments import make_named, target_return
from callsheet.nodes.replay import Replay
from callsheet.programs.actor_learner import (
  DEFAULT_ENGINE,
  ENGINES,
  actor_learner,
  check_replay,
)
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
    f'{run.title}, as {backend.name}, {run.replay}: {run.folder}', soft_wrap=True
  )
  if values.detach:
    console.print(backends.submit(backend, plan), soft_wrap=True)
    return 0
  try:
    with (
      terminated_like_interrupted(),
      start(plan, backend, terminal=Terminal(console)) as running,
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
      _conclude(run, folder.path, console)
    raise
  _conclude(run, folder.path, console)
  return 0


class _Run(NamedTuple):
  program: Program
  backend: Backend
  title: str
  replay: str
  folder: str
  config: dict[str, Any]
  target_return: float | None


def _conclude(run: _Run, directory: str, console: Console) -> None:
  rows = folders.read_metrics(directory)
  if rows:
    try:
      report.draw_curve(directory, rows, run.title)
    except OSError as error:
      console.print(f'the learning curve could not be written: {error}', soft_wrap=True)
  summary = report.summary(run.folder, rows, run.target_return)
  console.print(summary, soft_wrap=True)


def _prepare(name: str, values: flags.FlagValues) -> _Run:
  """Everything that can be refused before anything is started or written."""
  entry = registry.find(name)
  config = read_config(values, entry.config)
  options = environment_options.read(values.env_options)
  make_environment = make_named(values.env, **options)
  with contextlib.closing(make_environment(1, values.seed)) as probe:
    try:
      agent = entry.make(probe.spec(), config)
    except UsageError as error:
      raise UsageError(f'{values.env}: {error}') from error
  make_replay, replay_options = _replay(values)
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
  program = actor_learner(
    agent,
    make_environment,
    make_evaluation_environment=make_named(values.env, evaluation=True, **options),
    num_actors=values.num_actors,
    num_replays=values.num_replays,
    num_learner_hosts=values.num_learner_hosts,
    num_environments=values.num_environments,
    num_relays=values.num_relays,
    inference=values.inference,
    num_inference_servers=values.num_inference_servers,
    seed=values.seed,
    target_return=target,
    max_actor_steps=values.max_actor_steps,
    num_episodes=values.num_episodes,
    evaluation_period=values.evaluation_period,
    updates_per_dispatch=values.updates_per_dispatch,
    run_directory=os.path.abspath(folder),
    make_replay=make_replay,
    replay_options=replay_options,
    check_here=not backends.elsewhere(backend),
  )
  taken = None
  if not backends.elsewhere(backend):
    tables = with_room(agent.tables, values.num_actors * values.num_environments)
    taken = check_replay(make_replay, tables, replay_options)
  replay = f'{values.replay} replay' + (f' ({taken})' if taken else '')
  described = {
    'agent': name,
    'agent_config': dataclasses.asdict(config),
    'flags': {flag: values[flag].value for flag in _OWN},
    'target_return': target,
    'versions': {
      package: importlib.metadata.version(package)
      for package in ('callsheet', 'jax', 'dm-haiku', 'optax', 'rlax', 'gymnasium')
    },
    'python': platform.python_version(),
  }
  title = f'{name} on {values.env}, seed {values.seed}'
  return _Run(program, backend, title, replay, folder, described, target)


def _replay(
  values: flags.FlagValues,
) -> tuple[Callable[..., Replay], dict[str, object]]:
  """The chosen engine and what it is given, once it is known that it can run here."""
  engine, port, directory = values.replay, values.replay_port, values.replay_directory
  if engine not in ENGINES:
    near = difflib.get_close_matches(engine, ENGINES, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise UsageError(f'no replay {engine!r}; {hint}there are {", ".join(ENGINES)}')
  options: dict[str, object] = {}
  if engine == 'reverb':
    if values.num_replays > 1:
      raise UsageError(
        f'--num_replays={values.num_replays}: keys of Reverb leave no room to name '
        'their shard; take --replay=native'
      )
    if directory is not None:
      raise UsageError(
        f"--replay_directory={directory} is the native replay's, Reverb's tables are "
        'in memory; leave it out, or take --replay=native'
      )
    requirements.for_reverb()
    if port is not None:
      _check_port(port)
    options = {'port': port}
  elif port is not None:
    raise UsageError(
      f"--replay_port={port} is Reverb's, the {engine} replay has no port of its own; "
      'leave it out, or take --replay=reverb'
    )
  elif directory is not None:
    options = {'columns_directory': os.path.abspath(directory)}
  return ENGINES[engine], options


def _check_port(port: int) -> None:
  """The replay's node finds out too, but only once it has imported Reverb."""
  try:
    with reverb_port.reserved(port):
      pass
  except UsageError:
    raise UsageError(
      f'port {port} can not be had, for it is taken or not yours to take; name another '
      '--replay_port, or none: any free one is found'
    ) from None


_OWN = (
  'env',
  'env_options',
  *backends.OWN,
  'name',
  'runs_directory',
  'seed',
  'num_actors',
  'num_replays',
  'num_learner_hosts',
  'num_environments',
  'num_relays',
  'inference',
  'num_inference_servers',
  'num_episodes',
  'evaluation_period',
  'target_return',
  'max_actor_steps',
  'updates_per_dispatch',
  'replay',
  'replay_port',
  'replay_directory',
)


def _help(values: flags.FlagValues, known: list[str]) -> str:
  sections: dict[str, Sequence[str]] = {'the run': _OWN, **backends.sections(values)}
  for name in known[:1]:
    sections[f'{name} (write None as `none`)'] = config_names(
      registry.find(name).config
    )
  others = '' if known else f'\n\nMore for each agent: {USAGE.split(" --")[0]} --help'
  return help.page(values, USAGE, sections) + others


def _flags() -> flags.FlagValues:
  values = new_flags()
  backends.define(values)

  def string(name: str, default: str | None, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=values)

  def integer(
    name: str, default: int | None, what: str, low: int = 0, high: int | None = None
  ) -> None:
    flags.DEFINE_integer(name, default, what, low, high, flag_values=values)

  string('env', 'CartPole-v1', 'Name of the environment: see `callsheet envs`.')
  string('env_options', None, 'Its own, such as reward_clipping=false,num_threads=2.')
  string('name', None, 'Of the run; agent, environment, seed and time by default.')
  string('runs_directory', 'runs', 'Where the folders of runs are.')
  integer('seed', 0, 'Of everything that is random.')
  integer('num_actors', 2, 'Actors.', 1)
  integer('num_replays', 1, 'Replay nodes that share the tables.', 1)
  integer('num_learner_hosts', 1, 'Processes that the learner is.', 1)
  integer('num_environments', 16, 'Environments that each actor steps at once.', 1)
  integer('num_relays', 0, 'Nodes that hand parameters on; for hundreds of actors.')
  string('inference', 'actor', 'Who runs the policy: each actor, or a server.')
  integer('num_inference_servers', 1, 'Servers that share the actors.', 1)
  integer('num_episodes', 20, 'Episodes of one evaluation.', 1)
  integer('max_actor_steps', 500_000, 'Environment steps after which the run ends.', 1)
  integer(
    'updates_per_dispatch',
    None,
    "Learner steps in one call of the device's; none: 16, or 1 of an agent that learns "
    'from its newest policy alone.',
    1,
  )
  string('replay', DEFAULT_ENGINE, f'Its engine: {" or ".join(ENGINES)}.')
  integer(
    'replay_port', None, "The replay server's port; any free one by default.", 1, 65535
  )
  string(
    'replay_directory',
    None,
    "Where the native replay's columns are on disk; in memory by default.",
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
