"""`callsheet run AGENT`: trains an agent until its target or its budget is reached."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from typing import Any, NamedTuple

import gymnasium
from absl import flags
from rich.console import Console

from callsheet.agents import registry
from callsheet.commands import dashboard, folders, report
from callsheet.commands.flags import (
  define_config,
  new_flags,
  one_argument,
  parse,
  read_config,
)
from callsheet.launch import Backend, Processes, Terminal, backend_of, start
from callsheet.launch.launching import terminated_like_interrupted
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.programs.actor_learner import actor_learner
from callsheet.programs.program import Program

USAGE = 'callsheet run dqn --env=CartPole-v1'


def run(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = _flags()
  if argv[:1] and not argv[0].startswith('-'):
    define_config(values, registry.find(argv[0]).config)
  arguments = parse(values, argv)
  if values.help:
    print(f'{USAGE}\n{values.get_help()}')
    return 0
  name = one_argument(arguments, f'agent ({", ".join(registry.names())})', USAGE)
  run = _prepare(name, values)
  plan = run.program.plan()
  directory = folders.make(run.folder)
  folders.write_config(directory, run.config)
  backend = run.backend
  if isinstance(backend, Processes):
    logs = os.path.join(directory, 'logs')
    backend = dataclasses.replace(backend, log_directory=logs)
  console = Console(highlight=False)
  title = f'{name} on {values.env}, seed {values.seed}'
  console.print(f'{title}, as {backend.name}: {run.folder}', soft_wrap=True)
  try:
    with (
      terminated_like_interrupted(),
      start(plan, backend, terminal=Terminal(console)) as running,
    ):
      dashboard.follow(running, running.client('recorder').latest, console)
  finally:
    rows = folders.read_metrics(directory)
    if rows:
      report.draw_curve(directory, rows, title)
    console.print(report.summary(run.folder, rows, run.target_return), soft_wrap=True)
  return 0


class _Run(NamedTuple):
  program: Program
  backend: Backend
  folder: str
  config: dict[str, Any]
  target_return: float | None


def _prepare(name: str, values: flags.FlagValues) -> _Run:
  """Everything that can be refused before anything is started or written."""
  entry = registry.find(name)
  config = read_config(values, entry.config)
  backend = backend_of(values.backend)
  make_environment = make_gymnasium(values.env)
  probe = make_environment(1, values.seed)
  agent = entry.make(probe.spec(), config)
  probe.close()
  target = values.target_return
  if target is None:
    target = gymnasium.spec(values.env).reward_threshold
  stamp = f'{name}-{values.env.replace("/", "-")}-{time.strftime("%Y%m%d-%H%M%S")}'
  folder = os.path.join(values.runs_directory, values.name or stamp)
  program = actor_learner(
    agent,
    make_environment,
    num_actors=values.num_actors,
    num_environments=values.num_environments,
    seed=values.seed,
    target_return=target,
    max_actor_steps=values.max_actor_steps,
    num_episodes=values.num_episodes,
    updates_per_dispatch=values.updates_per_dispatch,
    run_directory=os.path.abspath(folder),
    replay_options={'port': values.replay_port},
  )
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
  return _Run(program, backend, folder, described, target)


_OWN = (
  'env',
  'backend',
  'name',
  'runs_directory',
  'seed',
  'num_actors',
  'num_environments',
  'num_episodes',
  'target_return',
  'max_actor_steps',
  'updates_per_dispatch',
  'replay_port',
)


def _flags() -> flags.FlagValues:
  values = new_flags()

  def string(name: str, default: str | None, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=values)

  def integer(name: str, default: int | None, what: str, low: int = 0) -> None:
    flags.DEFINE_integer(name, default, what, lower_bound=low, flag_values=values)

  string('env', 'CartPole-v1', "Gymnasium's name of the environment.")
  string('backend', 'processes', 'How the program runs: processes or threads.')
  string(
    'name', None, 'Of the run; the agent, the environment and the time by default.'
  )
  string('runs_directory', 'runs', 'Where the folders of runs are.')
  integer('seed', 0, 'Of everything that is random.')
  integer('num_actors', 2, 'Actors.', 1)
  integer('num_environments', 8, 'Environments that each actor steps at once.', 1)
  integer('num_episodes', 20, 'Episodes of one evaluation.', 1)
  integer('max_actor_steps', 500_000, 'Environment steps after which the run ends.', 1)
  integer('updates_per_dispatch', 8, "Learner steps in one call of the device's.", 1)
  integer('replay_port', None, "The replay server's port; any free one by default.", 1)
  flags.DEFINE_float(
    'target_return',
    None,
    "Mean return that ends the run; the environment's own threshold by default.",
    flag_values=values,
  )
  return values
