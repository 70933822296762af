"""A dataset, a learner, an evaluator: one program for agents that learn offline."""

from __future__ import annotations

import os
from collections.abc import Sequence

from callsheet.agents.base import Agent, NStep
from callsheet.errors import UsageError
from callsheet.nodes.counter import Counter
from callsheet.nodes.dataset import Dataset
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.evaluator import Evaluator
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.sinks import SinkOptions
from callsheet.programs import snapshotting
from callsheet.programs.actor_learner import run_seed
from callsheet.programs.program import Node, Program
from callsheet.programs.resources import OnFailure, Resources
from callsheet.programs.snapshotting import Snapshots


def offline(
  agent: Agent,
  make_environment: MakeEnvironment,
  dataset: str,
  *,
  num_learner_hosts: int = 1,
  seed: int = 0,
  target_return: float | None = None,
  max_learner_steps: int | None = None,
  num_episodes: int = 20,
  updates_per_dispatch: int = 16,
  evaluation_period: float = 0.3,
  run_directory: str | None = None,
  sinks: Sequence[SinkOptions] = (),
  snapshots: Snapshots | None = None,
) -> Program:
  """The program in which nobody acts but to evaluate: a learner samples a dataset.

  It ends when the evaluator has seen the target return, or has evaluated once more
  after the budget was spent; with neither it goes on until it is stopped.

  Args:
    agent: what is trained; it writes transitions, which the dataset has instead.
    make_environment: `(num_environments, seed) -> VectorEnvironment`, to evaluate in.
    dataset: its source, see `callsheet.nodes.datasets`.
    num_learner_hosts: processes that the learner is, each of which draws its share of
      every batch.
    seed: of the run; each node has one of its own, and those of two runs differ.
    target_return: mean undiscounted return over `num_episodes`.
    max_learner_steps: updates in all.
    num_episodes: of one evaluation.
    updates_per_dispatch: see `Learner`.
    evaluation_period: seconds from the end of one evaluation to the next.
    run_directory: gets metrics, the best policy and the learner's state; None for none.
    sinks: where the recorder's rows go beside the run's files.
    snapshots: that are taken into the run's folder; None takes none.

  Raises:
    UsageError: the agent doesn't learn from transitions, or the learner's processes
      can't share its batches, or there is no folder for snapshots.
  """
  writes = agent.writes
  if not isinstance(writes, NStep):
    raise UsageError(
      f'agent {agent.name!r} learns from sequences, expected one that learns from '
      'transitions, as a dataset has them: offline(bc(spec), ...)'
    )
  if num_learner_hosts < 1 or agent.samples.batch_size % num_learner_hosts:
    raise UsageError(
      f'num_learner_hosts is {num_learner_hosts}, expected a divisor of the batches of '
      f'{agent.samples.batch_size} that {agent.name!r} samples'
    )
  program = Program(agent.name)

  def folder(*parts: str) -> str | None:
    return None if run_directory is None else os.path.join(run_directory, *parts)

  base, kept = run_seed(seed), snapshotting.kept_in(run_directory, snapshots)
  again = snapshotting.restart(kept)
  counter = program.add(Node('counter', restart=again), Counter, kept)
  samples = program.add('dataset', Dataset, dataset, agent.spec, writes, seed=base + 2)
  recorder = program.add(
    Node('recorder', restart=again),
    Recorder,
    folder(),
    counter,
    samples,
    sinks=tuple(sinks),
  )
  learner = program.add(
    Node('learner', resources=Resources(hosts=num_learner_hosts), restart=again),
    Learner,
    agent,
    samples,
    counter,
    recorder,
    seed=base,
    updates_per_dispatch=updates_per_dispatch,
    max_steps=max_learner_steps,
    checkpoint_directory=folder('checkpoint', 'learner'),
    snapshot_directory=snapshotting.snapshots_in(kept),
  )
  program.add(
    Node('evaluator', ends_program=True, restart=OnFailure(max_restarts=10)),
    Evaluator,
    agent,
    make_environment,
    learner,
    counter,
    recorder,
    seed=base + 1,
    num_episodes=num_episodes,
    target_return=target_return,
    max_learner_steps=max_learner_steps,
    policy_directory=folder('checkpoint', 'policy'),
    period=evaluation_period,
  )
  snapshotting.add_snapshotter(program, kept, snapshots, learner, counter, recorder)
  return program
