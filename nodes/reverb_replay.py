"""A replay whose engine is dm-reverb 0.7.2, in the node's own process.

Reverb: https://arxiv.org/abs/2102.04736. Only this process imports TensorFlow, and it
runs none of its operations: no thread pools, no device. Actors and learners come
through the courier.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Batch, Table
from callsheet.calls import blocking
from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes import (
  replay_checks,
  replay_folders,
  reverb_checkpoints,
  step_checks,
)
from callsheet.nodes.limiting import Standing
from callsheet.nodes.replay import Sample
from callsheet.nodes.reverb_rows import pack, row_type, unpack
from callsheet.nodes.reverb_sampling import TableSampler
from callsheet.nodes.reverb_server import ReverbServer
from callsheet.nodes.reverb_steps import whole_items
from callsheet.nodes.reverb_writing import TableWriter
from callsheet.nodes.step_streams import Streams
from callsheet.nodes.table_statistics import Pace, TableStatistics, describe

_LEAVE_SECONDS = 1.0


class ReverbReplay:
  """The service; what its methods take and give is said at `replay.Replay`.

  `Limiter` maps to Reverb's `SampleToInsertRatio`, and to `MinSize` where it has no
  `samples_per_insert`; `callsheet.nodes.limiting` has the law and what it asks of the
  error buffer. What `statistics` calls inserted and sampled goes on from a restored
  checkpoint.

  Reverb listens on all interfaces and asks nobody who they are; its listener is bound
  to the loopback device, so that only users of this host still reach it.
  """

  def __init__(
    self,
    tables: Sequence[Table],
    checkpoint_directory: str | None = None,
    port: int | None = None,
    restore: bool = False,
    keep_checkpoints: int = 2,
  ) -> None:
    """Starts the server.

    Args:
      tables: what it holds.
      checkpoint_directory: where `checkpoint` writes to, this replay's alone; None for
        no checkpoints.
      port: of Reverb's own gRPC service; None takes a free one.
      restore: start from the newest checkpoint, empty if there is none yet.
      keep_checkpoints: how many of the newest stay.

    Raises:
      UsageError: a table can't work, the port is taken, the checkpoint doesn't fit the
        tables, or dm-reverb is not there.
    """
    self._tables = replay_checks.check_tables(tables)
    if keep_checkpoints < 1:
      raise UsageError(f'keep_checkpoints is at least 1, came {keep_checkpoints}')
    if restore and checkpoint_directory is None:
      raise UsageError('restore=True needs the checkpoint_directory to restore from')
    self._keep = keep_checkpoints
    self._directory = Path(checkpoint_directory) if checkpoint_directory else None
    self._highest = dict.fromkeys(self._tables, 1.0)
    self._aside: Path | None = None
    self._lock, self._checkpointing = threading.Lock(), threading.Lock()
    self._stopping, self._closed = threading.Event(), False
    self._callers, self._left = 0, threading.Condition()

    newest = None
    if self._directory is not None:
      if restore and (newest := reverb_checkpoints.newest(self._directory)):
        self._highest = reverb_checkpoints.check(newest, self._tables)
      self._aside = replay_folders.make_aside(self._directory)
    try:
      self._server = ReverbServer(self._tables.values(), port, self._aside, newest)
    except BaseException:
      self._remove_aside()
      raise
    self._streams = {name: Streams(table) for name, table in self._tables.items()}
    self._paces = {name: Pace(at) for name, at in self._server.standings().items()}
    self._rows = {name: row_type(table) for name, table in self._tables.items()}
    self._writers = {
      name: TableWriter(
        self._server.new_writer,
        table,
        self._rows[name].itemsize,
        functools.partial(self._standing, name),
        self._stopping,
      )
      for name, table in self._tables.items()
    }
    self._samplers = {
      name: TableSampler(
        self._server.client,
        table,
        self._rows[name].itemsize,
        functools.partial(self._standing, name),
        self._stopping,
      )
      for name, table in self._tables.items()
    }

  @classmethod
  def check(cls, tables: Sequence[Table], **others: object) -> str:
    """Looks at what a replay would take; `others` is what else it is given.

    Returns:
      how much memory: Reverb takes it as its tables fill, and compresses items.

    Raises:
      UsageError: a table can't work.
    """
    declared = replay_checks.check_tables(tables).values()
    full = sum(table.max_size * row_type(table).itemsize for table in declared)
    return f'up to {replay_checks.shown_bytes(full)} of memory, uncompressed'

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
    with self._caller():
      self._insert(table, block, given, count, timeout)
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
    assert declared.steps is not None
    with (
      self._caller(),
      self._streams[table].writing(source, block['step_type'], fresh) as stream,
    ):
      if not len(block['step_type']):
        return 0
      window = stream.extend(block)
      count = len(window.start)
      self._insert(table, whole_items(declared.steps, window), None, count, timeout)
    return count

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
    with self._caller():
      draws = self._samplers[table].draw(num_batches * batch_size, timeout)
    batch = Batch(
      data=unpack(self._rows[table], draws.rows, leading),
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
    with self._caller():
      if len(flat):
        self._raise_highest(table, values)
        updates = dict(zip(flat.tolist(), values.tolist(), strict=True))
        self._server.client.MutatePriorities(table, list(updates.items()), [])

  def checkpoint(self) -> str:
    """See `Replay.checkpoint`."""
    if self._directory is None:
      raise UsageError(
        'this replay has no folder for checkpoints: '
        'ReverbReplay(tables, checkpoint_directory=...)'
      )
    with self._caller(), self._checkpointing:
      written = Path(self._server.client.Checkpoint())
      place = reverb_checkpoints.publish(
        written, self._directory, self._tables, self._highest, self._keep
      )
    return str(place)

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Replay.statistics`."""
    with self._caller():
      standings = self._server.standings()
      samplers, writers = dict(self._samplers), dict(self._writers)
    return {
      name: describe(
        table,
        standings[name],
        self._paces[name],
        mass=samplers[name].mass_of(standings[name]),
        taken=standings[name].size * self._rows[name].itemsize,
        writers=writers[name].waiting.now(),
        samplers=samplers[name].waiting.now(),
      )
      for name, table in self._tables.items()
    }

  def close(self) -> None:
    """Ends waiting callers with CallCancelled, then the server. Idempotent."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
    self._stopping.set()
    for name in self._tables:
      self._samplers[name].wake()
      self._writers[name].wake()
    with self._left:
      self._left.wait_for(lambda: self._callers == 0, _LEAVE_SECONDS)
    for writer in self._writers.values():
      writer.close()
    self._samplers.clear()
    self._writers.clear()
    self._server.stop()
    self._remove_aside()

  @property
  def port(self) -> int:
    """Where Reverb's own gRPC service listens."""
    return self._server.port

  def _insert(
    self,
    table: str,
    block: Mapping[str, NDArray[np.generic]],
    priorities: NDArray[np.float64] | None,
    count: int,
    timeout: float | None,
  ) -> None:
    if not count:
      return
    if priorities is None:
      priorities = np.full(count, self._highest[table])
    self._raise_highest(table, priorities)
    try:
      rows = pack(self._rows[table], block)
      self._writers[table].write(rows, priorities.tolist(), timeout)
    finally:
      self._samplers[table].wake()

  @contextlib.contextmanager
  def _caller(self) -> Iterator[None]:
    with self._left:
      if self._stopping.is_set():
        raise CallCancelled('replay is stopping')
      self._callers += 1
    try:
      yield
    finally:
      with self._left:
        self._callers -= 1
        self._left.notify_all()

  def _standing(self, table: str) -> Standing:
    return self._server.standings()[table]

  def _raise_highest(self, table: str, priorities: NDArray[np.float64]) -> None:
    with self._lock:
      self._highest[table] = max(self._highest[table], float(priorities.max()))

  def _remove_aside(self) -> None:
    if self._aside is not None:
      shutil.rmtree(self._aside, ignore_errors=True)
