"""A replay whose engine is numpy: columns in memory, or in files mapped into it.

It imports neither TensorFlow nor JAX. Actors and learners come through the courier, or
call it directly where they share its process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Batch, Table
from callsheet.calls import blocking
from callsheet.errors import UsageError
from callsheet.nodes import native_memory, replay_checks, step_checks
from callsheet.nodes.native_checkpoints import Checkpoints
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.replay import Sample
from callsheet.nodes.table_statistics import Pace, TableStatistics


class NativeReplay:
  """The service; what its methods take and give is said at `replay.Replay`.

  The law of its limiter is that of `callsheet.nodes.limiting`, its draws are those of
  the Reverb engine: with replacement, uniform or in proportion to p^exponent. What its
  tables take is looked for before it is taken: see `check`.
  """

  def __init__(
    self,
    tables: Sequence[Table],
    checkpoint_directory: str | None = None,
    restore: bool = False,
    keep_checkpoints: int = 2,
    columns_directory: str | Mapping[str, str] | None = None,
    seed: int | None = None,
    checkpoint_at_close: bool = False,
  ) -> None:
    """Makes the tables.

    Args:
      tables: what it holds.
      checkpoint_directory: where `checkpoint` writes to, this replay's alone; None for
        no checkpoints.
      restore: start from the newest whole checkpoint, empty if there is none yet.
      keep_checkpoints: how many of the newest stay.
      columns_directory: on which disk the columns are, of all tables or by table's
        name; None, or a table that is not named, for memory. Keys and priorities are
        always in memory. The files there have no names: nothing is left of them.
      seed: of its draws, which are the same if the calls are; None for another one
        each time.
      checkpoint_at_close: whether `close` writes a last checkpoint, such as for
        learning offline from it.

    Raises:
      UsageError: a table can't work or doesn't fit into memory or on its disk, the
        checkpoint doesn't fit the tables, or each one there is damaged.
    """
    self._tables = replay_checks.check_tables(tables)
    if keep_checkpoints < 1:
      raise UsageError(f'keep_checkpoints is at least 1, came {keep_checkpoints}')
    if restore and checkpoint_directory is None:
      raise UsageError('restore=True needs the checkpoint_directory to restore from')
    if checkpoint_at_close and checkpoint_directory is None:
      raise UsageError('checkpoint_at_close=True needs a checkpoint_directory')
    self._checkpoint_at_close = checkpoint_at_close
    self._checkpoints = found = None
    if checkpoint_directory is not None:
      self._checkpoints = Checkpoints(Path(checkpoint_directory), keep_checkpoints)
      found = self._checkpoints.newest_whole(self._tables) if restore else None
    on_disk = native_memory.directories(tables, columns_directory)
    native_memory.check_fits(tables, on_disk)
    self._guarded = {
      name: GuardedTable(table, on_disk.get(name), seed)
      for name, table in self._tables.items()
    }
    if self._checkpoints is not None and found is not None:
      self._checkpoints.restore(found, self._guarded)
    self._paces = {
      name: Pace(table.standing()) for name, table in self._guarded.items()
    }
    self._checkpointing, self._stopping = threading.Lock(), threading.Event()

  @classmethod
  def check(
    cls,
    tables: Sequence[Table],
    *,
    columns_directory: str | Mapping[str, str] | None = None,
    **others: object,
  ) -> str:
    """Looks for what a replay would take, and takes none of it.

    Args:
      tables: as for the constructor.
      columns_directory: likewise.
      others: what else the constructor is given.

    Returns:
      how much memory, and how much of which disk.

    Raises:
      UsageError: a table can't work or doesn't fit.
    """
    replay_checks.check_tables(tables)
    on_disk = native_memory.directories(tables, columns_directory)
    native_memory.check_fits(tables, on_disk)
    return native_memory.stated(tables, on_disk)

  @blocking
  def insert(
    self,
    table: str,
    columns: Mapping[str, NDArray[np.generic]],
    priorities: NDArray[np.floating[Any]] | None = None,
    timeout: float | None = None,
  ) -> int:
    """See `Replay.insert`."""
    declared = replay_checks.find_table(self._tables, table)
    block, given, count = replay_checks.check_block(declared, columns, priorities)
    self._guarded[table].insert(block, given, count, timeout)
    return count

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
    """See `Replay.append`."""
    declared = replay_checks.find_table(self._tables, table)
    block = step_checks.check_steps(declared, steps)
    return self._guarded[table].append(source, block, fresh, timeout)

  @blocking
  def sample(
    self,
    table: str,
    batch_size: int,
    num_batches: int = 1,
    timeout: float | None = None,
  ) -> Sample:
    """See `Replay.sample`."""
    declared = replay_checks.find_table(self._tables, table)
    replay_checks.check_sizes(declared, batch_size, num_batches)
    leading = (num_batches, batch_size)
    draws = self._guarded[table].sample(num_batches * batch_size, timeout)
    batch = Batch(
      data={
        name: column.reshape(*leading, *column.shape[1:])
        for name, column in draws.columns.items()
      },
      probabilities=draws.probabilities.reshape(leading),
      table_size=draws.sizes.reshape(leading)[:, -1].copy(),
    )
    return Sample(batch, draws.keys.reshape(leading))

  def update_priorities(
    self,
    table: str,
    keys: NDArray[np.uint64],
    priorities: NDArray[np.floating[Any]],
  ) -> None:
    """See `Replay.update_priorities`."""
    replay_checks.find_table(self._tables, table)
    flat, values = replay_checks.check_update(table, keys, priorities)
    self._guarded[table].update(flat, values)

  def checkpoint(self) -> str:
    """See `Replay.checkpoint`.

    All tables are written down as they were at one moment; of the columns, what
    changed since the checkpoint before. Writers and samplers wait only while keys and
    priorities are copied.
    """
    if self._checkpoints is None:
      raise UsageError(
        'this replay has no folder for checkpoints: '
        'NativeReplay(tables, checkpoint_directory=...)'
      )
    with self._checkpointing:
      return str(self._checkpoints.write(self._guarded, self._stopping))

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Replay.statistics`."""
    return {
      name: table.statistics(self._paces[name]) for name, table in self._guarded.items()
    }

  def close(self) -> None:
    """Ends waiting callers with CallCancelled; lets go of the tables. Idempotent.

    Raises:
      UsageError: the last checkpoint, if there shall be one, can't be written.
    """
    try:
      if self._checkpoint_at_close and not self._stopping.is_set():
        self.checkpoint()
    finally:
      self._let_go()

  def _let_go(self) -> None:
    self._stopping.set()
    for table in self._guarded.values():
      table.stop()
    with self._checkpointing:  # One that is being written is given up by now.
      for table in self._guarded.values():
        table.let_go()
