"""The flags of `callsheet run`, but for the agent's own."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from callsheet.agents import registry
from callsheet.commands import (
  backends,
  help,
  offline,
  online,
  seeing,
  sinks,
  snapshot_flags,
)
from callsheet.commands.flags import config_names, new_flags
from callsheet.errors import UsageError

USAGE = 'callsheet run dqn --env=CartPole-v1'

OWN = (
  'debug',
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
  *snapshot_flags.OWN,
  *sinks.OWN,
)


def debug(values: flags.FlagValues, learns_offline: bool) -> None:
  """Sets what `--debug` stands for, if it was given.

  Args:
    values: the parsed flags.
    learns_offline: nobody acts then, so that nobody takes turns.

  Raises:
    UsageError: another backend was asked for.
  """
  if not values.debug:
    return
  if values['backend'].present and values.backend != 'threads':
    raise UsageError(
      f'--debug runs in threads, not with --backend={values.backend}; leave out one of '
      'the two, or take --pdb alone'
    )
  for name in ('pdb',) if learns_offline else ('pdb', 'lock_step'):
    values[name].value = True
  values['backend'].value = 'threads'


def page(values: flags.FlagValues, known: list[str]) -> str:
  """The page of help, with the flags of the agent that is known."""
  sections: dict[str, Sequence[str]] = {'the run': OWN}
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


def run_flags() -> flags.FlagValues:
  """All that a run has, but for its agent's."""
  values = new_flags()
  backends.define(values)
  seeing.define(values)
  online.define(values)
  offline.define(values)
  snapshot_flags.define(values)
  sinks.define(values)

  def string(name: str, default: str | None, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=values)

  def integer(name: str, default: int | None, what: str, low: int = 0) -> None:
    flags.DEFINE_integer(name, default, what, low, flag_values=values)

  flags.DEFINE_bool(
    'debug',
    False,
    'Whether nodes are threads, taking turns where they act and learn (--lock_step), '
    'with pdb at an exception and at each `breakpoint()`; a failure repeats.',
    flag_values=values,
  )
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
    'from its newest policy alone, or from large images.',
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
