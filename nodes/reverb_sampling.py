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
from callsheet.nodes.limiting import Standing, credit
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
  """One caller draws at a time; any number may ask."""

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
    self._changed = threading.Condition()
    self._drawing = False
    # Only draws use credit up, and one caller draws at a time: it stays valid.
    self._known_credit = 0.0

  def draw(self, count: int) -> Draws:
    """Draws so many, waiting for the limiter as often as need be.

    Raises:
      CallCancelled: the replay stops.
    """
    draws = Draws(
      np.empty((count, self._row_bytes), np.uint8),
      np.empty(count, np.uint64),
      np.empty(count, np.float32),
      np.empty(count, np.int32),
    )
    self._take_turn()
    try:
      done = 0
      while done < count:
        piece = min(count - done, _LARGEST_PIECE, self._await_credit())
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

  def _take_turn(self) -> None:
    with self._changed:
      self._changed.wait_for(lambda: self._stopping.is_set() or not self._drawing)
      self._check_running()
      self._drawing = True

  def _check_running(self) -> None:
    if self._stopping.is_set():
      raise CallCancelled('replay is stopping')

  def _await_credit(self) -> int:
    wait, longest = _POLL
    while True:
      self._check_running()
      if self._known_credit < 1:
        self._known_credit = self._ask()
      if self._known_credit >= 1:
        return int(min(self._known_credit, _LARGEST_PIECE))
      with self._changed:
        if not self._stopping.is_set():
          # A block that is only partly in doesn't notify; hence the poll.
          self._changed.wait(wait)
      wait = min(2 * wait, longest)

  def _ask(self) -> float:
    at = self._standing()
    passing = credit(self._table.limiter, at)
    if passing >= 1 and self._table.max_times_sampled:
      return min(passing, at.size - self._table.limiter.min_size + 1)
    return passing

  def _draw_piece(self, draws: Draws, start: int, count: int) -> None:
    if not math.isinf(self._known_credit):
      self._known_credit -= count
    sampler = self._client.NewSampler(self._table.name, count, count)
    for at in range(start, start + count):
      key, probability, size, _, _, row = sampler.GetNextTrajectory()
      draws.rows[at] = row
      draws.keys[at] = key
      draws.probabilities[at] = probability
      draws.sizes[at] = size
