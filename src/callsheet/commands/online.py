"""What `callsheet run` makes of an agent that acts: actors, a replay, a learner."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence

from absl import flags

from callsheet.agents.base import Agent
from callsheet.agents.step_tables import with_room
from callsheet.commands import backends, requirements
from callsheet.errors import UsageError
from callsheet.launch import Backend
from callsheet.nodes import reverb_port
from callsheet.nodes.dataset_checkpoints import IN_RUN
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.replay import Replay
from callsheet.nodes.sinks import SinkOptions
from callsheet.programs.actor_learner import (
  DEFAULT_ENGINE,
  ENGINES,
  actor_learner,
  check_replay,
)
from callsheet.programs.lock_step import lock_step
from callsheet.programs.program import Program
from callsheet.programs.snapshotting import Snapshots

OWN = (
  'num_actors',
  'num_replays',
  'num_environments',
  'num_relays',
  'inference',
  'num_inference_servers',
  'max_actor_steps',
  'replay',
  'replay_port',
  'replay_directory',
  'replay_checkpoint',
  'lock_step',
)
# What has no place where one actor and the learner take turns.
_NOT_IN_LOCK_STEP = (
  'num_actors',
  'num_replays',
  'num_learner_hosts',
  'num_relays',
  'inference',
  'num_inference_servers',
  'evaluation_period',
  'updates_per_dispatch',
  'replay',
  'replay_directory',
  'replay_checkpoint',
  'snapshot_every',
  'snapshots_kept',
  'snapshot_keep_every',
)


def define(values: flags.FlagValues) -> None:
  """Defines the flags that only such a run has."""

  def string(name: str, default: str | None, what: str) -> None:
    flags.DEFINE_string(name, default, what, flag_values=values)

  def integer(
    name: str, default: int | None, what: str, low: int = 0, high: int | None = None
  ) -> None:
    flags.DEFINE_integer(name, default, what, low, high, flag_values=values)

  integer('num_actors', 2, 'Actors.', 1)
  integer('num_replays', 1, 'Replay nodes that share the tables.', 1)
  integer('num_environments', 16, 'Environments that each actor steps at once.', 1)
  integer('num_relays', 0, 'Nodes that hand parameters on; for hundreds of actors.')
  string('inference', 'actor', 'Who runs the policy: each actor, or a server.')
  integer('num_inference_servers', 1, 'Servers that share the actors.', 1)
  integer('max_actor_steps', 500_000, 'Environment steps after which the run ends.', 1)
  string('replay', DEFAULT_ENGINE, f'Its engine: {" or ".join(ENGINES)}.')
  integer(
    'replay_port', None, "The replay server's port; any free one by default.", 1, 65535
  )
  string(
    'replay_directory',
    None,
    "Where the native replay's columns are on disk; in memory by default.",
  )
  flags.DEFINE_bool(
    'replay_checkpoint',
    False,
    'Whether the native replay is kept in the run folder: a --dataset to learn from.',
    flag_values=values,
  )
  flags.DEFINE_bool(
    'lock_step',
    False,
    'Whether one actor and the learner take turns: the same seed, the same numbers.',
    flag_values=values,
  )


def program(
  values: flags.FlagValues,
  agent: Agent,
  make_environment: MakeEnvironment,
  make_evaluation_environment: MakeEnvironment,
  target_return: float | None,
  folder: str,
  backend: Backend,
  snapshots: Snapshots | None,
  life: int = 0,
  replay_room: int = 0,
  chosen: Sequence[SinkOptions] = (),
) -> tuple[Program, str]:
  """The program, and what its replay is, in words.

  Args:
    values: the parsed flags.
    agent: what is trained.
    make_environment: makes its environments.
    make_evaluation_environment: makes those that it is evaluated in.
    target_return: that ends the run; None for none.
    folder: of the run, absolute.
    backend: that it will run as.
    chosen: sinks, where its figures go beside its files.
    snapshots: that are taken into the folder; None for none.
    life: how often the run was begun before.
    replay_room: environments that its replay has had room for.

  Raises:
    UsageError: a flag that can't be met, or doesn't fit another.
  """
  if values.lock_step:
    made = _lock_step(
      values,
      agent,
      make_environment,
      make_evaluation_environment,
      target_return,
      folder,
      chosen,
    )
    return made, 'native replay, in lock-step'
  make_replay, options = _replay(values, folder)
  here = not backends.elsewhere(backend)
  made = actor_learner(
    agent,
    make_environment,
    make_evaluation_environment=make_evaluation_environment,
    num_actors=values.num_actors,
    num_replays=values.num_replays,
    num_learner_hosts=values.num_learner_hosts,
    num_environments=values.num_environments,
    num_relays=values.num_relays,
    inference=values.inference,
    num_inference_servers=values.num_inference_servers,
    seed=values.seed,
    target_return=target_return,
    max_actor_steps=values.max_actor_steps,
    num_episodes=values.num_episodes,
    evaluation_period=values.evaluation_period,
    updates_per_dispatch=values.updates_per_dispatch,
    run_directory=folder,
    make_replay=make_replay,
    replay_options=options,
    check_here=here,
    sinks=chosen,
    snapshots=snapshots,
    life=life,
    replay_room=replay_room,
  )
  taken = None
  if here:
    tables = with_room(agent.tables, room(values, replay_room))
    taken = check_replay(make_replay, tables, options)
  return made, f'{values.replay} replay' + (f' ({taken})' if taken else '')


def room(values: flags.FlagValues, replay_room: int = 0) -> int:
  """Environments that the replay needs room for, or has it anyway."""
  return max(int(values.num_actors * values.num_environments), replay_room)


def _lock_step(
  values: flags.FlagValues,
  agent: Agent,
  make_environment: MakeEnvironment,
  make_evaluation_environment: MakeEnvironment,
  target_return: float | None,
  folder: str,
  chosen: Sequence[SinkOptions],
) -> Program:
  given = [name for name in _NOT_IN_LOCK_STEP if values[name].present]
  if given:
    raise UsageError(
      f'--{given[0]} has no meaning with --lock_step, in which one actor and the '
      'learner take turns; leave out one of the two'
    )
  return lock_step(
    agent,
    make_environment,
    make_evaluation_environment=make_evaluation_environment,
    num_environments=values.num_environments,
    seed=values.seed,
    target_return=target_return,
    max_actor_steps=values.max_actor_steps,
    num_episodes=values.num_episodes,
    run_directory=folder,
    sinks=chosen,
  )


def _replay(
  values: flags.FlagValues, folder: str
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
    if values.replay_checkpoint:
      raise UsageError(
        "--replay_checkpoint is the native replay's, which alone is read as a "
        'dataset; leave it out, or take --replay=native'
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
  if directory is not None:
    options['columns_directory'] = os.path.abspath(directory)
  if values.replay_checkpoint:
    options['checkpoint_directory'] = os.path.join(folder, IN_RUN)
    options |= {'checkpoint_at_close': True, 'keep_checkpoints': 1}
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
