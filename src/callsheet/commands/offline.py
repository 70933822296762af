"""What `callsheet run` makes of an agent that learns from a dataset alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from callsheet.agents.base import Agent, EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes import datasets
from callsheet.nodes.dataset_minari import PREFIX
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.sinks import SinkOptions
from callsheet.programs.offline import offline
from callsheet.programs.program import Program
from callsheet.programs.snapshotting import Snapshots

OWN = ('dataset', 'max_learner_steps')

# Keeps what never changes in a dataset near 0, as its authors do: TD3+BC.
_LEAST_STD = 1e-3


def define(values: flags.FlagValues) -> None:
  """Defines the flags that only such a run has."""
  flags.DEFINE_string(
    'dataset',
    None,
    'What it learns from: the folder of a run with --replay_checkpoint, '
    'minari:DATASET-ID, or a file DATA.npz.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'max_learner_steps',
    100_000,
    'Learner steps after which the run ends.',
    1,
    flag_values=values,
  )


def config_for(
  values: flags.FlagValues, agent: str, spec: EnvironmentSpec, config: Any
) -> tuple[Any, str]:
  """The config, with the dataset's statistics if it asks for them; and its size.

  Args:
    values: the parsed flags.
    agent: its name, for messages.
    spec: of the environment.
    config: an offline agent's.

  Raises:
    UsageError: no dataset is named, or it doesn't fit the environment.
  """
  if values.dataset is None:
    raise UsageError(
      f'{agent} learns from a dataset: --dataset=runs/NAME of a run that was made with '
      '--replay_checkpoint, --dataset=minari:DATASET-ID, or --dataset=DATA.npz'
    )
  columns = datasets.load(values.dataset, spec, config.discount)
  if getattr(config, 'normalize', False):
    observation = columns['observation'].astype(np.float64)
    std = np.std(observation, axis=0) + _LEAST_STD
    config = dataclasses.replace(
      config,
      observation_mean=tuple(np.mean(observation, axis=0).tolist()),
      observation_std=tuple(std.tolist()),
    )
  return config, f'{len(columns["reward"]):,} transitions of {values.dataset}'


def program(
  values: flags.FlagValues,
  agent: Agent,
  make_environment: MakeEnvironment,
  target_return: float | None,
  folder: str,
  snapshots: Snapshots | None,
  chosen: Sequence[SinkOptions] = (),
) -> Program:
  """The program.

  Args:
    values: the parsed flags.
    agent: what is trained.
    make_environment: makes the environments that it is evaluated in.
    target_return: that ends the run; None for none.
    folder: of the run, absolute.
    snapshots: that are taken into it; None for none.
    chosen: sinks, where its figures go beside its files.
  """
  source = values.dataset
  return offline(
    agent,
    make_environment,
    source if source.startswith(PREFIX) else os.path.abspath(source),
    num_learner_hosts=values.num_learner_hosts,
    seed=values.seed,
    target_return=target_return,
    max_learner_steps=values.max_learner_steps,
    num_episodes=values.num_episodes,
    updates_per_dispatch=values.updates_per_dispatch or 16,
    evaluation_period=values.evaluation_period,
    run_directory=folder,
    sinks=chosen,
    snapshots=snapshots,
  )
