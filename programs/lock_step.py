"""One actor and the learner taking turns: a program that can be repeated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from callsheet.agents.base import Agent
from callsheet.agents.step_tables import with_room
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.lock_step import LockStep
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.sinks import SinkOptions
from callsheet.programs.actor_learner import run_seed
from callsheet.programs.program import Node, Program


def lock_step(
  agent: Agent,
  make_environment: MakeEnvironment,
  *,
  num_environments: int = 16,
  seed: int = 0,
  target_return: float | None = None,
  max_actor_steps: int | None = None,
  num_episodes: int = 20,
  evaluation_steps: int = 2_000,
  run_directory: str | None = None,
  sinks: Sequence[SinkOptions] = (),
  make_evaluation_environment: MakeEnvironment | None = None,
) -> Program:
  """The program of `actor_learner` with one actor, in lock-step.

  With the same seed it gives the same numbers, on the same machine and with the same
  versions. It is for finding out what happens, not for speed.

  Args:
    agent: what is trained.
    make_environment: `(num_environments, seed) -> VectorEnvironment`.
    num_environments: that the actor steps at once.
    seed: of everything, the replay's draws included.
    target_return: mean undiscounted return over `num_episodes`.
    max_actor_steps: environment steps.
    num_episodes: of one evaluation.
    evaluation_steps: environment steps from one evaluation to the next.
    run_directory: gets metrics, the best policy and the learner's state; None for none.
    sinks: where the recorder's rows go beside the run's files.
    make_evaluation_environment: the same for the evaluator; None for the same ones.
  """
  base = run_seed(seed)
  tables = with_room(agent.tables, num_environments)
  agent = dataclasses.replace(agent, tables=tables)

  def folder(*parts: str) -> str | None:
    return None if run_directory is None else os.path.join(run_directory, *parts)

  program = Program(agent.name)
  counter = program.add('counter', Counter)
  replay = program.add('replay', NativeReplay, agent.tables, seed=base)
  recorder = program.add(
    'recorder', Recorder, folder(), counter, replay, sinks=tuple(sinks)
  )
  program.add(
    Node('agent', ends_program=True),
    LockStep,
    agent,
    make_environment,
    replay,
    counter,
    recorder,
    seed=base,
    num_environments=num_environments,
    evaluation_steps=evaluation_steps,
    num_episodes=num_episodes,
    target_return=target_return,
    max_actor_steps=max_actor_steps,
    policy_directory=folder('checkpoint', 'policy'),
    checkpoint_directory=folder('checkpoint', 'learner'),
    make_evaluation_environment=make_evaluation_environment,
  )
  return program
