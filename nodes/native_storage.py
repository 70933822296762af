"""Arrays of so many slots each, in memory or on disk, written down as they go on.

What is written of them is written by chunks of slots. A chunk that nobody touched since
it was written last need not be written again; what is overwritten while a checkpoint
has still to come to it is kept aside, so that nobody waits for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.nodes import native_mapping

CHUNK_BYTES = 16 * 2**20

Rows = dict[str, NDArray[np.generic]]


class Chunks(NamedTuple):
  """Numbers of chunks, of all that hold anything.

  Attributes:
    changed: since the last checkpoint; those first that a ring overwrites first.
    same: as in the last checkpoint.
  """

  changed: list[int]
  same: list[int]


class Storage:
  """The arrays. It knows no locks: all but `take` is called under its table's.

  Attributes:
    arrays: `[slots, ...]` each, to be read, and to be written behind `touch`.
    slots: how many.
    chunk: slots of one chunk.
    chunks: how many.
    changed: chunks that were touched since the last checkpoint that was completed.
  """

  def __init__(
    self,
    slots: int,
    layout: Mapping[str, np.dtype[np.generic]],
    directory: Path | None = None,
  ) -> None:
    """Makes the arrays.

    Args:
      slots: how many, at least 1.
      layout: dtype of one slot, with its shape: `np.dtype((np.uint8, (84, 84)))`.
      directory: where their files are mapped from; None for memory.

    Raises:
      UsageError: the disk doesn't have the space.
    """
    self.slots = slots
    self.arrays: Rows = {
      name: np.empty((slots, *dtype.shape), dtype.base)
      if directory is None
      else native_mapping.mapped(directory, slots, dtype)
      for name, dtype in layout.items()
    }
    self.chunk = max(1, CHUNK_BYTES // max(1, slot_bytes(layout)))
    self.chunks = -(-slots // self.chunk)
    self.changed = np.zeros(self.chunks, np.bool_)
    # No slot from there on was ever touched, now and when a checkpoint began.
    self._end = self._end_then = 0
    self._next = 0
    self._writing: NDArray[np.bool_] | None = None
    self._pending = np.zeros_like(self.changed)
    self._kept: dict[int, _Kept] = {}

  def touch(self, where: NDArray[np.int64] | slice) -> None:
    """To be called before slots are written, at least one: `[N]`, or start and stop."""
    if isinstance(where, slice):
      first, end = where.start, where.stop
      chunks: NDArray[np.int64] | slice = slice(
        first // self.chunk, (end - 1) // self.chunk + 1
      )
    else:
      end, chunks = int(where.max()) + 1, where // self.chunk
    if self._writing is not None and self._pending[chunks].any():
      self._keep(where)
    self.changed[chunks] = True
    self._next = end % self.slots
    if end > self._end:
      # Chunks in between, which nobody touched, are in no checkpoint yet.
      self.changed[self._end // self.chunk : -(-end // self.chunk)] = True
      self._end = end

  def begin(self) -> Chunks:
    """From now on `take` gives chunks as they are at this moment.

    Ends with `end`; each of the changed chunks is to be taken before.
    """
    self._writing, self._end_then = self.changed.copy(), self._end
    used = -(-self._end // self.chunk)
    self._writing[used:] = False
    self._pending = self._writing.copy()
    self.changed[:] = False
    order = np.roll(np.arange(self.chunks), -(self._next // self.chunk))
    changed = order[self._writing[order]].tolist()
    return Chunks(changed, np.flatnonzero(~self._writing[:used]).tolist())

  def take(self, number: int, lock: threading.Lock) -> list[NDArray[np.generic]]:
    """Copies of one chunk, array by array, as it was at `begin`.

    Args:
      number: of the chunk.
      lock: the table's; it is not held while rows are copied.
    """
    # A row that is overwritten meanwhile is torn here, and whole among those kept.
    start, stop = self.bounds(number)
    copies = {name: array[start:stop].copy() for name, array in self.arrays.items()}
    with lock:
      self._pending[number] = False
      kept = self._kept.pop(number, None)
    for slots, rows in kept.rows if kept is not None else ():
      for name, copy in copies.items():
        copy[slots - start] = rows[name]
    return list(copies.values())

  def end(self, completed: bool) -> None:
    """The checkpoint is over; if it came to nothing, what it had to write is left."""
    if self._writing is not None and not completed:
      self.changed |= self._writing
    self._writing = None
    self._pending[:] = False
    self._kept.clear()

  def bounds(self, number: int) -> tuple[int, int]:
    """Start and stop of a chunk's slots, as far as they held anything at `begin`."""
    start = number * self.chunk
    return start, min(start + self.chunk, self._end_then)

  def restored(self, end: int) -> None:
    """Every slot before `end` was filled by what a checkpoint has."""
    self._end = self._end_then = end
    self.changed[:] = False

  def _keep(self, where: NDArray[np.int64] | slice) -> None:
    slots = np.arange(where.start, where.stop) if isinstance(where, slice) else where
    slots = slots[slots < self._end_then]
    chunks = slots // self.chunk
    for number in np.unique(chunks[self._pending[chunks]]).tolist():
      kept = self._kept.setdefault(number, _Kept(self.chunk))
      mine = slots[chunks == number]
      mine = mine[~kept.known[mine - number * self.chunk]]
      kept.known[mine - number * self.chunk] = True
      kept.rows.append((mine, {name: a[mine] for name, a in self.arrays.items()}))


class _Kept:
  """Rows of one chunk that were overwritten before it was taken."""

  def __init__(self, chunk: int) -> None:
    self.known = np.zeros(chunk, np.bool_)
    self.rows: list[tuple[NDArray[np.int64], Rows]] = []


def slot_bytes(layout: Mapping[str, np.dtype[np.generic]]) -> int:
  """Bytes that one slot takes."""
  return sum(dtype.itemsize for dtype in layout.values())
