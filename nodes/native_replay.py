"""A replay whose engine is numpy: columns in the memory of this process.

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
from callsheet.nodes import (
  native_checkpoints,
  native_memory,
  replay_checks,
  step_checks,
)
from callsheet.nodes.limiting import credit, state
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.replay import Sample, TableStatistics


class NativeReplay:
  """The service; what its methods take and give is said at `replay.Replay`.

  The law of its limiter is that of `callsheet.nodes.limiting`, its draws are those of
  the Reverb engine: with replacement, uniform or in proportion to p^exponent. What a
  table takes is `native_memory.memory`, and is looked for before it is taken.
  """

  def __init__(
    self,
    tables: Sequence[Table],
    checkpoint_directory: str | None = None,
    restore: bool = False,
    keep_checkpoints: int = 2,
  ) -> None:
    """Makes the tables.

    Args:
      tables: what it holds.
      checkpoint_directory: where `checkpoint` writes to, this replay's alone; None for
        no checkpoints.
      restore: start from the newest whole checkpoint, empty if there is none yet.
      keep_checkpoints: how many of the newest stay.

    Raises:
      UsageError: a table can't work or doesn't fit into memory, the checkpoint doesn't
        fit the tables, or each one there is damaged.
    """
    self._tables = replay_checks.check_tables(tables)
    if keep_checkpoints < 1:
      raise UsageError(f'keep_checkpoints is at least 1, came {keep_checkpoints}')
    if restore and checkpoint_directory is None:
      raise UsageError('restore=True needs the checkpoint_directory to restore from')
    self._keep = keep_checkpoints
    self._directory = Path(checkpoint_directory) if checkpoint_directory else None
    newest = None
    if restore and self._directory is not None:
      newest = native_checkpoints.newest_whole(self._directory, self._tables)
    native_memory.check_fits(tables)
    self._guarded = {name: GuardedTable(table) for name, table in self._tables.items()}
    if newest is not None:
      native_checkpoints.restore(newest, self._guarded)
    self._checkpointing, self._stopping = threading.Lock(), threading.Event()

  @blocking
  def insert(
    self,
    table: str,
    columns: Mapping[str, NDArray[np.generic]],
    priorities: NDArray[np.floating[Any]] | None = None,
  ) -> int:
    """See `Replay.insert`."""
    declared = replay_checks.find_table(self._tables, table)
    block, given, count = replay_checks.check_block(declared, columns, priorities)
    self._guarded[table].insert(block, given, count)
    return count

  @blocking
  def append(
    self,
    table: str,
    source: int | str,
    steps: Mapping[str, NDArray[np.generic]],
    *,
    fresh: bool = False,
  ) -> int:
    """See `Replay.append`."""
    declared = replay_checks.find_table(self._tables, table)
    block = step_checks.check_steps(declared, steps)
    return self._guarded[table].append(source, block, fresh)

  @blocking
  def sample(self, table: str, batch_size: int, num_batches: int = 1) -> Sample:
    """See `Replay.sample`."""
    declared = replay_checks.find_table(self._tables, table)
    replay_checks.check_sizes(declared, batch_size, num_batches)
    leading = (num_batches, batch_size)
    draws = self._guarded[table].sample(num_batches * batch_size)
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
    declared = replay_checks.find_table(self._tables, table)
    flat, values = replay_checks.check_update(declared, keys, priorities)
    self._guarded[table].update(flat, values)

  def checkpoint(self) -> str:
    """See `Replay.checkpoint`.

    All tables are written down as they were at one moment. Writers and samplers go on
    meanwhile: they wait while keys and priorities are copied, and for pieces of the
    columns of a few megabytes each.
    """
    if self._directory is None:
      raise UsageError(
        'this replay has no folder for checkpoints: '
        'NativeReplay(tables, checkpoint_directory=...)'
      )
    with self._checkpointing:
      place = native_checkpoints.write(
        self._directory, self._guarded, self._keep, self._stopping
      )
    return str(place)

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Replay.statistics`."""
    standings = {name: table.standing() for name, table in self._guarded.items()}
    return {
      name: TableStatistics(
        size=at.size,
        max_size=table.max_size,
        inserted=at.inserted,
        sampled=at.sampled,
        samples_per_insert=at.sampled / at.inserted if at.inserted else float('nan'),
        credit=credit(table.limiter, at),
        state=state(table.limiter, at),
      )
      for name, table in self._tables.items()
      for at in (standings[name],)
    }

  def close(self) -> None:
    """Ends waiting callers with CallCancelled. Idempotent."""
    self._stopping.set()
    for table in self._guarded.values():
      table.stop()
    with self._checkpointing:
      pass  # One that is being written is given up by now.
