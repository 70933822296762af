"""Writes blocks of rows into one table of a Reverb server, from any number of threads.

A writer is a gRPC stream and belongs to one caller at a time; idle ones are kept for
the next. Reverb holds an item back while the limiter says so and confirms each one. It
warns about every item beyond 50 on their way: so they go in pieces of 40.

What is on its way can't be called back, and Reverb doesn't tell what became of it. So a
caller who waits only so long has the table to itself, and sends what passes at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from callsheet.agents.base import Table
from callsheet.errors import CallCancelled
from callsheet.nodes.limiting import Standing, room
from callsheet.nodes.patience import Patience, WaitingRoom, too_late
from callsheet.nodes.reverb_rows import Rows

_PIECE = 40
_CHUNK_BYTES = 4096
_STOP_POLL_MS = 100
_POLL = 0.01


class TableWriter:
  """The writers of one table.

  Attributes:
    waiting: callers whom the limiter holds back.
  """

  def __init__(
    self,
    new_writer: Callable[[int], Any],
    table: Table,
    row_bytes: int,
    standing: Callable[[], Standing],
    stopping: threading.Event,
  ) -> None:
    """A pool of writers, empty at first.

    Args:
      new_writer: makes a `pybind.TrajectoryWriter` with that chunk length.
      table: what they write to.
      row_bytes: of one packed item.
      standing: asks the server where the table stands.
      stopping: set when the replay stops.
    """
    self.waiting = WaitingRoom()
    self._new_writer, self._table, self._stopping = new_writer, table, stopping
    self._standing = standing
    # A draw decompresses the whole chunk of its item: long chunks for small rows only.
    self._chunk = max(1, min(_PIECE, _CHUNK_BYTES // row_bytes))
    self._idle: list[Any] = []
    self._changed = threading.Condition()
    # Callers who write side by side, and one who wants to be alone or is.
    self._writing, self._alone = 0, False

  def write(
    self, rows: Rows, priorities: Sequence[float], timeout: float | None = None
  ) -> None:
    """Inserts rows `[N, bytes]`, each with its priority; returns when all are stored.

    Raises:
      ReplayTimeout: that took longer than `timeout` seconds.
      CallCancelled: the replay stops.
    """
    patience = Patience(timeout)
    if timeout is None:
      with self._side_by_side(), self._writer() as writer:
        for start in range(0, len(rows), _PIECE):
          piece = slice(start, start + _PIECE)
          self._send(writer, rows[piece], priorities[piece])
      return
    with self._by_itself(patience, len(rows)), self._writer() as writer:
      done = 0
      while done < len(rows):
        if (passing := self._passing()) < 1:
          with self.waiting.seat():
            passing = self._await_room(patience, done, len(rows))
        piece = slice(done, done + min(passing, len(rows) - done))
        self._send(writer, rows[piece], priorities[piece])
        done = piece.stop

  def close(self) -> None:
    """Closes the idle writers; the others close as their callers leave."""
    with contextlib.suppress(IndexError):  # a caller who leaves may close as well
      while True:
        self._idle.pop().Close()

  @contextlib.contextmanager
  def _side_by_side(self) -> Iterator[None]:
    with self._changed:
      self._wait(lambda: not self._alone)
      self._check_running()
      self._writing += 1
    try:
      yield
    finally:
      with self._changed:
        self._writing -= 1
        self._changed.notify_all()

  @contextlib.contextmanager
  def _by_itself(self, patience: Patience, count: int) -> Iterator[None]:
    def late() -> Exception:
      return too_late('insert', self._table, self._standing(), patience, 0, count)

    with self._changed:
      if not self._wait(lambda: not self._alone, patience.left()):
        raise late()
      self._check_running()
      self._alone = True
    try:
      with self._changed:
        if not self._wait(lambda: not self._writing, patience.left()):
          raise late()
      yield
    finally:
      with self._changed:
        self._alone = False
        self._changed.notify_all()

  def _wait(self, free: Callable[[], bool], timeout: float | None = None) -> bool:
    """Whether it is free in time, or the replay stops."""
    if free() or self._stopping.is_set():
      return True
    with self.waiting.seat():
      return self._changed.wait_for(lambda: free() or self._stopping.is_set(), timeout)

  def _passing(self) -> int:
    self._check_running()
    return int(min(room(self._table.limiter, self._standing()), _PIECE))

  def _await_room(self, patience: Patience, done: int, count: int) -> int:
    while (passing := self._passing()) < 1:
      if (left := patience.left()) == 0:
        raise too_late('insert', self._table, self._standing(), patience, done, count)
      self._stopping.wait(_POLL if left is None else min(_POLL, left))
    return passing

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

  def _send(self, writer: Any, rows: Rows, priorities: Sequence[float]) -> None:
    for row, priority in zip(rows, priorities, strict=True):
      writer.CreateItem(self._table.name, priority, [writer.Append([row])], [True])
    if not self._flush(writer):
      with self.waiting.seat():
        while not self._flush(writer):
          pass

  def _flush(self, writer: Any) -> bool:
    """Whether all of it is stored by now; gives up after a moment."""
    try:
      writer.Flush(0, _STOP_POLL_MS)
    except RuntimeError as error:
      if 'Timeout exceeded' not in str(error):
        raise
      self._check_running()
      return False
    # A server that stops confirms what it drops.
    self._check_running()
    return True

  def wake(self) -> None:
    """To be called when the replay stops."""
    with self._changed:
      self._changed.notify_all()

  def _check_running(self) -> None:
    if self._stopping.is_set():
      raise CallCancelled('replay is stopping')
