"""Snapshots in a program: how often, and what comes back from them when it is lost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.nodes.counter import Counter
from callsheet.nodes.dataset_checkpoints import IN_RUN as REPLAY_IN_RUN
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay
from callsheet.nodes.snapshots import IN_RUN
from callsheet.nodes.snapshotter import Snapshotter
from callsheet.programs.program import Node, Program
from callsheet.programs.resources import Never, OnFailure, Restart

# Seconds that the last snapshot may take once the program stops.
_GRACE = 60.0


@dataclass(frozen=True)
class Snapshots:
  """That a program takes snapshots into its run's folder.

  Its learner, replay, counter and recorder are restarted up to ten times then, with
  what the newest snapshot has of them.

  Attributes:
    period: seconds from the end of one to the next.
    kept: so many of the newest stay.
    keep_every: each one whose number it divides stays for good; None for none.
  """

  period: float = 300.0
  kept: int = 3
  keep_every: int | None = None


def kept_in(run_directory: str | None, snapshots: Snapshots | None) -> str | None:
  """The folder that nodes go on from; None if there are no snapshots.

  Raises:
    UsageError: there is no folder for them.
  """
  if snapshots is None:
    return None
  if run_directory is None:
    raise UsageError('snapshots need a folder: run_directory=...')
  return run_directory


def snapshots_in(kept: str | None) -> str | None:
  """Where the learner finds its state."""
  return None if kept is None else os.path.join(kept, IN_RUN)


def restart(kept: str | None) -> Restart:
  """Of the nodes that a snapshot has the state of."""
  return Never() if kept is None else OnFailure(max_restarts=10)


def replay_options(
  kept: str | None, options: Mapping[str, object]
) -> Mapping[str, object]:
  """The replay's options, with a folder to write checkpoints to and begin with."""
  if kept is None:
    return options
  folder = os.path.join(kept, str(REPLAY_IN_RUN))
  return {'checkpoint_directory': folder, 'restore': True, **options}


def add_snapshotter(
  program: Program,
  kept: str | None,
  snapshots: Snapshots | None,
  learner: Learner,
  counter: Counter,
  recorder: Recorder,
  replay: Replay | Sequence[Replay] | None = None,
) -> None:
  """The node that takes them, if there shall be any; it is added last."""
  if kept is None or snapshots is None:
    return
  program.add(
    Node('snapshotter', restart=OnFailure(max_restarts=10), grace=_GRACE),
    Snapshotter,
    kept,
    learner,
    counter,
    recorder,
    replay,
    period=snapshots.period,
    kept=snapshots.kept,
    keep_every=snapshots.keep_every,
  )
