"""`callsheet resume RUN_FOLDER`: a run goes on from its newest whole snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from callsheet.agents.step_tables import with_room
from callsheet.commands import (
  backends,
  folders,
  help,
  saved_runs,
  seeing,
  sinks,
  snapshot_flags,
)
from callsheet.commands.flags import one_argument, parse
from callsheet.commands.preparing import Resumed, Run, prepare
from callsheet.commands.run import carry_out
from callsheet.commands.run_flags import run_flags
from callsheet.errors import UsageError
from callsheet.nodes import resuming, snapshots
from callsheet.nodes.dataset_checkpoints import IN_RUN

USAGE = 'callsheet resume runs/NAME --backend=threads --num_actors=4'

# What may be otherwise from now on; the rest is what the run is.
_MAY_CHANGE = (
  *backends.OWN,
  'num_learner_hosts',
  'num_episodes',
  'evaluation_period',
  'target_return',
  'updates_per_dispatch',
  'num_actors',
  'num_environments',
  'num_relays',
  'inference',
  'num_inference_servers',
  'max_actor_steps',
  'max_learner_steps',
  'replay_port',
  'replay_directory',
  'replay_checkpoint',
  *seeing.OWN,
  *sinks.OWN,
  *snapshot_flags.OWN,
)
_NOT_KEPT = ('dry_run', 'detach', 'name', 'runs_directory')


def resume(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  asked = run_flags()
  arguments = parse(asked, argv)
  if asked.help:
    print(_help(asked))
    return 0
  folder = one_argument(arguments, 'folder of a run', USAGE)
  saved = folders.read_config(folder)
  _check(asked, saved)
  values = run_flags()
  parse(values, [*_given(values, saved, asked), *argv])
  resumed = Resumed(
    folder,
    saved,
    saved_runs.agent_config(saved, folder),
    int(saved.get('life', 0)) + 1,
  )
  run = prepare(saved['agent'], values, resumed)
  plan = run.program.plan()
  if values.dry_run:
    print(backends.dry_run(run.backend, plan))
    return 0
  chosen = resuming.choose(Path(folder, snapshots.IN_RUN))
  said = [*chosen.said, *_changes(chosen, run)]
  if chosen.has_replay and not _fits(run, saved):
    chosen = chosen._replace(has_replay=False)
    said.append(
      'so many environments need more room in the replay than the snapshot has: it '
      'begins empty'
    )
  directory = Path(folder).resolve()
  resuming.lay_out(directory, chosen, _replay_folders(directory, values))
  folders.write_config(str(directory), run.config)
  run = run._replace(said=(*said, resuming.described(chosen)))
  return carry_out(run, plan, folders.Folder(str(directory), ()), values)


def _check(asked: flags.FlagValues, saved: Mapping[str, Any]) -> None:
  if saved['flags'].get('lock_step'):
    raise UsageError(
      'a run in lock-step takes no snapshots: it can be repeated instead'
    )
  for name in saved['flags']:
    if name in asked and asked[name].present and name not in _MAY_CHANGE:
      raise UsageError(
        f'--{name} is what this run is, it has {saved["flags"][name]!r}; leave it out, '
        'or begin another run'
      )


def _given(
  values: flags.FlagValues, saved: Mapping[str, Any], asked: flags.FlagValues
) -> list[str]:
  """The command line that the run was begun with, but for what isn't to be kept."""
  kept = dict(saved['flags'])
  if not asked['backend'].present or asked.backend == kept.get('backend'):
    kept |= saved.get('backend_options', {})
  else:
    kept.pop('backend', None)
  return [
    f'--{name}={str(value).lower() if isinstance(value, bool) else value}'
    for name, value in kept.items()
    if name in values
    and name not in _NOT_KEPT
    and value is not None
    and value != values[name].default
  ]


def _changes(chosen: resuming.Chosen, run: Run) -> list[str]:
  """Packages that are others than those that wrote the snapshot."""
  now = run.config['versions']
  return [
    f'the snapshot is of {package} {before}, this is {now[package]}'
    for package, before in chosen.snapshot.manifest['versions'].items()
    if now.get(package, before) != before
  ]


def _fits(run: Run, saved: Mapping[str, Any]) -> bool:
  """Whether its tables are those that the snapshot was taken of."""
  before, now = saved.get('replay_room', 0), run.config.get('replay_room', 0)
  tables = run.agent.tables
  return with_room(tables, before) == with_room(tables, now)


def _replay_folders(directory: Path, values: flags.FlagValues) -> list[Path]:
  place = directory / IN_RUN
  if values.num_replays == 1:
    return [place]
  return [place / str(index) for index in range(values.num_replays)]


def _help(values: flags.FlagValues) -> str:
  own = [name for name in _MAY_CHANGE if name not in snapshot_flags.OWN]
  sections = {
    'what may be otherwise from now on': own,
    'snapshots': snapshot_flags.OWN,
    **backends.sections(values),
  }
  return help.page(values, USAGE, sections)
