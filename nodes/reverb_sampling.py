"""Draws from one table of a Reverb server in this process, never more than may pass.

`pybind.Sampler` reads the table without gRPC, but Reverb 0.7.2 can't be called back
from a wait for its limiter, not even by stopping the server. So the wait is here, where
a stop reaches it, and Reverb is asked only for what passes at once.
Nothing is drawn ahead of a call either: priorities are never older than the call, and
the limiter counts what a learner has really been given.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.errors import CallCancelled
from callsheet.nodes.limiting import Standing, passing_samples
from callsheet.nodes.patience import Patience, WaitingRoom, too_late
from callsheet.nodes.reverb_rows import Rows

_LARGEST_PIECE = 512
_POLL = (0.002, 0.02)


class Draws(NamedTuple):
  """N draws: rows `[N, bytes]`, keys, probabilities and table sizes `[N]`."""

  rows: Rows
  keys: NDArray[np.uint64]
  probabilities: NDArray[np.float32]
  sizes: NDArray[np.int32]


class TableSampler:
  """One caller draws at a time; any number may ask.

  Attributes:
    waiting: those who do.
  """

  def __init__(
    self,
    client: Any,
    table: Table,
    row_bytes: int,
    standing: Callable[[], Standing],
    stopping: threading.Event,
  ) -> None:
    """A sampler of one table.

    Args:
      client: a `pybind.Client` of the server.
      table: what it draws from.
      row_bytes: of one packed item.
      standing: asks the server where the table stands.
      stopping: set when the replay stops.
    """
    self._client, self._table, self._row_bytes = client, table, row_bytes
    self._standing, self._stopping = standing, stopping
    self.waiting, self._mass = WaitingRoom(), math.nan
    self._changed = threading.Condition()
    self._drawing = False
    # Only draws use credit up, and one caller draws at a time: it stays valid.
    self._known_credit = 0.0

  def draw(self, count: int, timeout: float | None = None) -> Draws:
    """Draws so many, waiting for the limiter as often as need be.

    Raises:
      ReplayTimeout: that took longer than `timeout` seconds.
      CallCancelled: the replay stops.
    """
    patience = Patience(timeout)
    draws = Draws(
      np.empty((count, self._row_bytes), np.uint8),
      np.empty(count, np.uint64),
      np.empty(count, np.float32),
      np.empty(count, np.int32),
    )
    self._take_turn(patience, count)
    try:
      done = 0
      while done < count:
        if (passing := self._passing()) < 1:
          with self.waiting.seat():
            passing = self._await_credit(patience, done, count)
        piece = min(count - done, passing)
        self._draw_piece(draws, done, piece)
        done += piece
    finally:
      with self._changed:
        self._drawing = False
        self._changed.notify_all()
    return draws

  def wake(self) -> None:
    """To be called where credit may be new, and when the replay stops."""
    with self._changed:
      self._changed.notify_all()

  def mass_of(self, at: Standing) -> float:
    """See `TableStatistics.mass`."""
    return self._mass if self._table.sampler == 'prioritized' else float(at.size)

  def _take_turn(self, patience: Patience, count: int) -> None:
    def free() -> bool:
      return self._stopping.is_set() or not self._drawing

    with self._changed:
      if not free():
        with self.waiting.seat():
          in_time = self._changed.wait_for(free, patience.left())
        if not in_time:
          raise too_late('sample', self._table, self._standing(), patience, 0, count)
      self._check_running()
      self._drawing = True

  def _check_running(self) -> None:
    if self._stopping.is_set():
      raise CallCancelled('replay is stopping')

  def _passing(self) -> int:
    self._check_running()
    if self._known_credit < 1:
      self._known_credit = passing_samples(
        self._table.limiter, self._table.max_times_sampled, self._standing()
      )
    return int(min(self._known_credit, _LARGEST_PIECE))

  def _await_credit(self, patience: Patience, done: int, count: int) -> int:
    wait, longest = _POLL
    while (passing := self._passing()) < 1:
      if (left := patience.left()) == 0:
        at = self._standing()
        raise too_late('sample', self._table, at, patience, done, count)
      with self._changed:
        if not self._stopping.is_set():
          # A block that is only partly in doesn't notify; hence the poll.
          self._changed.wait(wait if left is None else min(wait, left))
      wait = min(2 * wait, longest)
    return passing

  def _draw_piece(self, draws: Draws, start: int, count: int) -> None:
    if not math.isinf(self._known_credit):
      self._known_credit -= count
    sampler = self._client.NewSampler(self._table.name, count, count)
    for at in range(start, start + count):
      key, probability, size, priority, _, row = sampler.GetNextTrajectory()
      draws.rows[at] = row
      draws.keys[at] = key
      draws.probabilities[at] = probability
      draws.sizes[at] = size
    # Where the sum had a remainder Reverb draws what has weight 0, with probability 0.
    if self._table.sampler == 'prioritized' and probability > 0:
      weight = float(priority) ** self._table.priority_exponent if priority else 0.0
      self._mass = weight / float(probability)
