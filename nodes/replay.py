"""The replay between actors and learners: blocks of columns in, batches of columns out.

Two engines stand behind it: `callsheet.nodes.reverb_replay` has dm-reverb's own server,
`callsheet.nodes.native_replay` columns of numpy; an agent can't tell which one it has.
What every engine checks is in `callsheet.nodes.replay_checks`, how it holds actors and
learners in proportion in `callsheet.nodes.limiting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Batch
from callsheet.calls import blocking
from callsheet.nodes.table_statistics import TableStatistics as TableStatistics


class Sample(NamedTuple):
  """K batches of B items, drawn one by one.

  Attributes:
    batch: columns `[K, B, ...]` as they were written, `probabilities` `[K, B]` float32
      and `table_size` `[K]` int32, both as they were when the item was drawn.
    keys: `[K, B]` uint64, to hand back to `update_priorities`.
  """

  batch: Batch
  keys: NDArray[np.uint64]


class Sampled(Protocol):
  """What a learner and a recorder see: of a replay, or of a dataset."""

  @blocking
  def sample(
    self,
    table: str,
    batch_size: int,
    num_batches: int = 1,
    timeout: float | None = None,
  ) -> Sample:
    """Draws K = `num_batches` times B = `batch_size` items, with replacement.

    Waits, item by item, while the limiter holds learners back.

    Args:
      table: its name.
      batch_size: B.
      num_batches: K.
      timeout: seconds that it waits in all; 0 doesn't wait, None waits as long as it
        takes.

    Raises:
      ValueError: no such table, or a size below 1.
      ReplayTimeout: the time is up. What was drawn by then is lost to the caller; the
        limiter and `max_times_sampled` have counted it, and `done` says how many.
      CallCancelled: the replay stops.
    """
    ...

  def update_priorities(
    self, table: str, keys: NDArray[np.uint64], priorities: NDArray[np.floating[Any]]
  ) -> None:
    """Sets the priorities of items; those that have left the table are passed over.

    Args:
      table: its name.
      keys: uint64 of any shape, as `sample` gave them; of a key that comes twice the
        last priority holds.
      priorities: of the same shape, at least 0.

    Raises:
      ValueError: no such table, or keys and priorities that don't fit.
    """
    ...

  def statistics(self) -> Mapping[str, TableStatistics]:
    """How each table stands, by name."""
    ...


class Replay(Sampled, Protocol):
  """What actors and learners see of a replay, whatever the engine."""

  @blocking
  def insert(
    self,
    table: str,
    columns: Mapping[str, NDArray[np.generic]],
    priorities: NDArray[np.floating[Any]] | None = None,
    timeout: float | None = None,
  ) -> int:
    """Stores N items; waits, item by item, while the limiter holds actors back.

    Args:
      table: its name.
      columns: `[N, ...]` each, exactly the table's columns, dtypes and item shapes.
      priorities: `[N]`, at least 0; None gives each the highest priority that the
        table has seen so far, 1.0 at first.
      timeout: seconds that it waits in all; 0 stores what passes at once, None waits
        as long as it takes.

    Returns:
      N, once all are stored.

    Raises:
      ValueError: the block doesn't fit the table; nothing was stored.
      ReplayTimeout: the time is up; its `done` says how many are stored, the first ones
        of the block.
      CallCancelled: the replay stops; some of the block may have been stored.
    """
    ...

  @blocking
  def append(
    self,
    table: str,
    source: int | str,
    steps: Mapping[str, NDArray[np.generic]],
    *,
    fresh: bool = False,
    timeout: float | None = None,
  ) -> int:
    """Stores T time steps of B environments in a table that is fed with these.

    The items that they complete, wherever blocks begin and end, are stored with the
    highest priority that the table has seen so far; the call waits, item by item, while
    the limiter holds actors back. An environment's steps count from its first FIRST on.

    Args:
      table: its name.
      source: who writes; its blocks follow each other.
      steps: `[T, B, ...]` each, a row being what an environment answered: `step_type`
        int32, `reward` and `discount` float32 as dm_env means them, `observation` (of a
        stack of frames the newest alone), the `action` that led to it and the table's
        extras that came with that action; both are ignored where `step_type` is FIRST.
      fresh: the source begins anew, as after a reset; what it has written stays.
      timeout: see `insert`.

    Returns:
      the items that this block completed, once all are stored.

    Raises:
      ValueError: the block doesn't fit the table or the blocks before it, or the source
        is neither known nor fresh; nothing was stored.
      ReplayTimeout: it took longer; items that were not yet stored are lost, and there
        may be none of an episode's that goes on in the next block.
      CallCancelled: the replay stops; some of the block may have been stored.
    """
    ...

  def checkpoint(self) -> str:
    """Writes tables, items and limiters down; returns the checkpoint's folder.

    Raises:
      UsageError: this replay was given no folder for checkpoints.
    """
    ...
