"""Writes blocks of rows into one table of a Reverb server, from any number of threads.

A writer is a gRPC stream and belongs to one caller at a time; idle ones are kept for
the next. Reverb holds an item back while the limiter says so and confirms each one. It
warns about every item beyond 50 on their way: so they go in pieces of 40.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from callsheet.errors import CallCancelled
from callsheet.nodes.reverb_rows import Rows

_PIECE = 40
_CHUNK_BYTES = 4096
_STOP_POLL_MS = 100


class TableWriter:
  """The writers of one table."""

  def __init__(
    self,
    new_writer: Callable[[int], Any],
    table: str,
    row_bytes: int,
    stopping: threading.Event,
  ) -> None:
    """A pool of writers, empty at first.

    Args:
      new_writer: makes a `pybind.TrajectoryWriter` with that chunk length.
      table: the table's name.
      row_bytes: of one packed item.
      stopping: set when the replay stops.
    """
    self._new_writer, self._table, self._stopping = new_writer, table, stopping
    # A draw decompresses the whole chunk of its item: long chunks for small rows only.
    self._chunk = max(1, min(_PIECE, _CHUNK_BYTES // row_bytes))
    self._idle: list[Any] = []

  def write(self, rows: Rows, priorities: Sequence[float]) -> None:
    """Inserts rows `[N, bytes]`, each with its priority; returns when all are stored.

    Raises:
      CallCancelled: the replay stops.
    """
    with self._writer() as writer:
      for start in range(0, len(rows), _PIECE):
        for row, priority in zip(
          rows[start : start + _PIECE], priorities[start : start + _PIECE], strict=True
        ):
          writer.CreateItem(self._table, priority, [writer.Append([row])], [True])
        self._flush(writer)

  def close(self) -> None:
    """Closes the idle writers; the others close as their callers leave."""
    with contextlib.suppress(IndexError):  # a caller who leaves may close as well
      while True:
        self._idle.pop().Close()

  @contextlib.contextmanager
  def _writer(self) -> Iterator[Any]:
    try:
      writer = self._idle.pop()
    except IndexError:
      writer = self._new_writer(self._chunk)
    try:
      yield writer
    except BaseException:
      # What it still holds must not follow later; only Close ends it without a wait.
      writer.Close()
      raise
    self._idle.append(writer)
    if self._stopping.is_set():
      self.close()

  def _flush(self, writer: Any) -> None:
    while True:
      try:
        writer.Flush(0, _STOP_POLL_MS)
      except RuntimeError as error:
        if 'Timeout exceeded' not in str(error):
          raise
      else:
        # A server that stops confirms what it drops.
        if not self._stopping.is_set():
          return
      if self._stopping.is_set():
        raise CallCancelled('replay is stopping')
