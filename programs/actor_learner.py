"""Actors, a learner, a replay in between: one program for any agent."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from callsheet.agents.base import Agent, Table
from callsheet.agents.step_tables import with_room
from callsheet.errors import UsageError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.evaluator import Evaluator
from callsheet.nodes.inference import InferenceServer
from callsheet.nodes.learner import Learner
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.relay import Relay
from callsheet.nodes.replay import Replay
from callsheet.nodes.reverb_replay import ReverbReplay
from callsheet.nodes.shards import shares
from callsheet.nodes.sinks import SinkOptions
from callsheet.nodes.variables import ParameterSource
from callsheet.programs import snapshotting
from callsheet.programs.program import Node, Program
from callsheet.programs.resources import OnFailure, Resources
from callsheet.programs.snapshotting import Snapshots

# The replay's engines by name, and the one that is taken where none is named.
ENGINES: Mapping[str, Callable[..., Replay]] = MappingProxyType(
  {'native': NativeReplay, 'reverb': ReverbReplay}
)
DEFAULT_ENGINE = 'native'

# Numbers in an observation, from which on it is a large image.
_LARGE = 4096

_INFERENCE = ('actor', 'server')

# From one run's seeds to those of the next: so many nodes draw from them.
_SEEDS = 10_000
# And between two lives of one run: no multiple of the former.
_LIFE = 7_368_787


def actor_learner(
  agent: Agent,
  make_environment: MakeEnvironment,
  *,
  make_evaluation_environment: MakeEnvironment | None = None,
  num_actors: int = 2,
  num_replays: int = 1,
  num_learner_hosts: int = 1,
  num_environments: int = 16,
  num_relays: int = 0,
  inference: Literal['actor', 'server'] = 'actor',
  num_inference_servers: int = 1,
  inference_resources: Resources | None = None,
  seed: int = 0,
  target_return: float | None = None,
  max_actor_steps: int | None = None,
  num_episodes: int = 20,
  evaluation_period: float = 0.3,
  updates_per_dispatch: int | None = None,
  run_directory: str | None = None,
  make_replay: Callable[..., Replay] = ENGINES[DEFAULT_ENGINE],
  replay_options: Mapping[str, object] = MappingProxyType({}),
  check_here: bool = True,
  sinks: Sequence[SinkOptions] = (),
  snapshots: Snapshots | None = None,
  life: int = 0,
  replay_room: int = 0,
) -> Program:
  """The program in which actors write to a replay that a learner samples.

  It ends when the evaluator has seen the target return, or has evaluated once more
  after the budget was spent; with neither it goes on until it is stopped.

  Args:
    agent: what is trained.
    make_environment: `(num_environments, seed) -> VectorEnvironment`.
    make_evaluation_environment: the evaluator's, where its rewards are others than
      those that are learnt from; None takes the actors'.
    num_actors: each restarts up to ten times.
    num_replays: nodes that share the agent's tables between them; of several, each
      restarts up to ten times.
    num_learner_hosts: processes that the learner is, each of which draws its share of
      every batch.
    num_environments: that each actor steps at once.
    num_relays: nodes between the learner and those who act, which hand its parameters
      on to a share of them each; for hundreds of actors.
    inference: who runs the policy: each 'actor' for itself, or a 'server' for many.
    num_inference_servers: that share the actors; each restarts as an actor does.
    inference_resources: of each server, such as an accelerator; one core by default.
    seed: of the run; each node has one of its own, and those of two runs differ.
    target_return: mean undiscounted return over `num_episodes`.
    max_actor_steps: environment steps of all actors.
    num_episodes: of one evaluation.
    evaluation_period: seconds from the end of one evaluation to the next.
    updates_per_dispatch: see `Learner`; None takes 16, or 1 where the agent is
      `on_policy` or learns from large images: such updates are long.
    run_directory: gets metrics, the best policy and the learner's state; None for none.
    make_replay: the engine, from the agent's tables: one of `ENGINES`, or another. Is
      there a `make_replay.check`, see `check_replay`, it is asked.
    replay_options: further keyword arguments of the engine.
    check_here: whether the replay will run on this machine, so that its tables have to
      fit here.
    sinks: where the recorder's rows go beside the run's files.
    snapshots: that are taken into the run's folder; needs an engine that takes a
      `checkpoint_directory` and `restore`. None takes none.
    life: how often this run was begun before; those who act draw other numbers then.
    replay_room: environments that the tables have room for, if they are more than those
      of the actors.

  Raises:
    UsageError: there is no actor, a server without an actor, another `inference`, the
      learner's processes can't share its batches, or the replay's tables don't fit
      here, or there is no folder for snapshots.
    GraphError: `make_replay` doesn't take the tables and these options.
  """
  if num_actors < 1:
    raise UsageError(f'num_actors is {num_actors}, expected at least 1')
  if not 0 <= num_relays <= num_actors:
    raise UsageError(
      f'num_relays is {num_relays}, expected 0 to num_actors, {num_actors}'
    )
  _check_learner(agent, num_learner_hosts)
  _check_inference(inference, num_inference_servers, num_actors)
  if updates_per_dispatch is None:
    large = math.prod(agent.spec.observation.shape) >= _LARGE
    updates_per_dispatch = 1 if agent.on_policy or large else 16
  program = Program(agent.name)

  def folder(*parts: str) -> str | None:
    return None if run_directory is None else os.path.join(run_directory, *parts)

  kept = snapshotting.kept_in(run_directory, snapshots)
  restart = snapshotting.restart(kept)
  replay_options = snapshotting.replay_options(kept, replay_options)
  base = run_seed(seed)
  acting = (base + life * _LIFE) % 2**31
  room = max(num_actors * num_environments, replay_room)
  tables = with_room(agent.tables, room)
  agent = dataclasses.replace(agent, tables=tables)
  counter = program.add(Node('counter', restart=restart), Counter, kept)
  tables_of = [agent.tables] if num_replays == 1 else shares(agent.tables, num_replays)
  replay: Replay | list[Replay]
  if num_replays == 1:
    replay = program.add(
      Node('replay', restart=restart), make_replay, agent.tables, **replay_options
    )
  else:
    # The others go on meanwhile: see `ShardedReplay`.
    with program.group('replay', restart=OnFailure(max_restarts=10)):
      replay = [
        program.add('replay', make_replay, tables, **_of_shard(replay_options, index))
        for index, tables in enumerate(tables_of)
      ]
  for tables in tables_of if check_here else ():
    check_replay(make_replay, tables, replay_options)
  recorder = program.add(
    Node('recorder', restart=restart),
    Recorder,
    folder(),
    counter,
    replay,
    sinks=tuple(sinks),
  )
  learner = program.add(
    Node('learner', resources=Resources(hosts=num_learner_hosts), restart=restart),
    Learner,
    agent,
    replay,
    counter,
    recorder,
    seed=base,
    updates_per_dispatch=updates_per_dispatch,
    checkpoint_directory=folder('checkpoint', 'learner'),
    snapshot_directory=snapshotting.snapshots_in(kept),
  )
  sources: list[ParameterSource] = [learner]
  if num_relays:
    with program.group('relay', restart=OnFailure(max_restarts=10)):
      sources = [program.add('relay', Relay, learner) for _ in range(num_relays)]
  servers: list[InferenceServer] = []
  if inference == 'server':
    node = Node(
      'inference', resources=inference_resources, restart=OnFailure(max_restarts=10)
    )
    several = num_inference_servers > 1
    with program.group('inference') if several else contextlib.nullcontext():
      for index in range(num_inference_servers):
        # In turn: the first few may have one actor more than the others.
        share = len(range(index, num_actors, num_inference_servers))
        servers.append(
          program.add(
            node,
            InferenceServer,
            agent,
            sources[index % len(sources)],
            recorder,
            seed=acting + 2 + num_actors + index,
            max_batch_size=share * num_environments,
            update_period=0.0 if agent.on_policy else 0.1,
          )
        )
  with program.group('actor', restart=OnFailure(max_restarts=10)):
    for index in range(num_actors):
      program.add(
        'actor',
        Actor,
        agent,
        make_environment,
        replay,
        None if servers else sources[index % len(sources)],
        counter,
        recorder,
        seed=acting + 2 + index,
        num_environments=num_environments,
        inference=servers[index % len(servers)] if servers else None,
      )
  program.add(
    Node('evaluator', ends_program=True, restart=OnFailure(max_restarts=10)),
    Evaluator,
    agent,
    make_evaluation_environment or make_environment,
    learner,
    counter,
    recorder,
    seed=acting + 1,
    num_episodes=num_episodes,
    target_return=target_return,
    max_actor_steps=max_actor_steps,
    policy_directory=folder('checkpoint', 'policy'),
    period=evaluation_period,
  )
  snapshotting.add_snapshotter(
    program, kept, snapshots, learner, counter, recorder, replay
  )
  return program


def run_seed(seed: int) -> int:
  """The first of the seeds that the nodes of a run have."""
  return seed * _SEEDS


def _check_learner(agent: Agent, num_hosts: int) -> None:
  if num_hosts < 1:
    raise UsageError(f'num_learner_hosts is {num_hosts}, expected at least 1')
  if agent.samples.batch_size % num_hosts:
    raise UsageError(
      f'num_learner_hosts is {num_hosts}, by which the batches of '
      f'{agent.samples.batch_size} that {agent.name!r} samples can not be divided; '
      'take a batch_size that can'
    )


def _check_inference(inference: str, num_servers: int, num_actors: int) -> None:
  if inference not in _INFERENCE:
    near = difflib.get_close_matches(inference, _INFERENCE, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise UsageError(
      f'no inference {inference!r}; {hint}there are {", ".join(_INFERENCE)}'
    )
  if inference == 'actor' and num_servers != 1:
    raise UsageError(
      f'num_inference_servers is {num_servers}, but each actor runs the policy itself; '
      "leave it out, or take inference='server'"
    )
  if not 1 <= num_servers <= num_actors:
    raise UsageError(
      f'num_inference_servers is {num_servers}, expected 1 to num_actors, {num_actors}'
    )


def _of_shard(options: Mapping[str, object], index: int) -> dict[str, object]:
  """The options of one of several: its checkpoints are in a folder of its own."""
  folder = options.get('checkpoint_directory')
  if not isinstance(folder, str):
    return dict(options)
  return {**options, 'checkpoint_directory': os.path.join(folder, str(index))}


def check_replay(
  make_replay: Callable[..., Replay],
  tables: Sequence[Table],
  options: Mapping[str, object],
) -> str | None:
  """What a replay would take of this machine, in words; None if the engine can't say.

  An engine says it by a class method `check(tables, **options)`, with the options of
  its constructor.

  Raises:
    UsageError: it can't work here.
  """
  check = getattr(make_replay, 'check', None)
  return None if check is None else str(check(tables, **options))
