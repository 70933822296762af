"""One table for many callers: one lock, and waits that the law or a stop ends.

The law is the one of `callsheet.nodes.limiting`, item by item; what passes at once is
computed for the whole block, which is split only where it has to wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.agents.step_tables import fewest_steps, in_progress, max_steps
from callsheet.errors import CallCancelled
from callsheet.nodes.limiting import Standing, credit, room
from callsheet.nodes.native_table import Block, Draws, NativeTable, weigh
from callsheet.nodes.step_streams import Source, Streams
from callsheet.nodes.sum_tree import Floats


class GuardedTable:
  """A table that waits.

  Attributes:
    lock: held by whoever looks at `table`.
    table: the items themselves.
  """

  def __init__(self, table: Table) -> None:
    self.lock = threading.Lock()
    self.table = NativeTable(table)
    self._declared = table
    self._written = threading.Condition(self.lock)
    self._drawn = threading.Condition(self.lock)
    self._streams = Streams(table)
    self._turn = threading.Condition(self.lock)
    self._appending = self._stopping = False

  def insert(self, block: Block, priorities: Floats | None, count: int) -> None:
    """Stores N = `count` items as the law lets them pass.

    Raises:
      CallCancelled: the replay stops.
    """
    weights = None if priorities is None else weigh(self._declared, priorities)
    with self.lock:
      self._check_running()
      if priorities is not None and count:
        self.table.raise_highest(priorities)
      self._write(block, weights, count)

  def append(self, source: Source, steps: Block, fresh: bool) -> int:
    """Stores time steps `[T, B, ...]`, and as the law lets them pass the items.

    One source appends at a time: while it waits, nobody overwrites what its items show.

    Raises:
      ValueError: the block can't follow what the source has written.
      CallCancelled: the replay stops.
    """
    length, environments = steps['step_type'].shape
    self._check_steps(source, environments)
    made = 0
    with self._streams.writing(source, steps['step_type'], fresh) as stream, self.lock:
      self._check_running()
      while self._appending:
        self._turn.wait()
        self._check_running()
      self._appending = True
      try:
        piece = max(1, max_steps(self._declared) // 4 // environments)
        for start in range(0, length, piece):
          block = {name: steps[name][start : start + piece] for name in steps}
          items = self.table.append(stream, block)
          self._write(items.block, None, items.number)
          made += items.number
      finally:
        self._appending = False
        self._turn.notify()
    return made

  def sample(self, count: int) -> Draws:
    """Draws N = `count` items as the law lets them pass.

    Raises:
      CallCancelled: the replay stops.
    """
    draws = self.table.new_draws(count)
    with self.lock:
      self._check_running()
      done = 0
      while done < count:
        passing = self._await(self._written, self._credit)
        part = slice(done, done + int(min(passing, count - done)))
        self.table.draw(draws, part)
        self._drawn.notify_all()
        done = part.stop
    return draws

  def update(self, keys: NDArray[np.uint64], priorities: Floats) -> None:
    """Sets priorities `[N]`."""
    weights = weigh(self._declared, priorities)
    with self.lock:
      self._check_running()
      if len(keys):
        self.table.raise_highest(priorities)
        self.table.update(keys, weights)

  def standing(self) -> Standing:
    """Where it stands."""
    with self.lock:
      self._check_running()
      return self.table.standing

  def stop(self) -> None:
    """Ends every wait, now and later, with CallCancelled."""
    with self.lock:
      self._stopping = True
      self._written.notify_all()
      self._drawn.notify_all()
      self._turn.notify_all()

  def _write(self, block: Block, weights: Floats | None, count: int) -> None:
    done = 0
    while done < count:
      passing = self._await(self._drawn, self._room)
      part = slice(done, done + int(min(passing, count - done)))
      self.table.write(block, weights, part)
      self._written.notify_all()
      done = part.stop

  def _check_steps(self, source: Source, environments: int) -> None:
    table = self._declared
    if table.steps is None:
      return
    taken = self._streams.in_progress(source)
    taken += environments * in_progress(table.steps.writes)
    needed = fewest_steps(table) + taken
    if needed > max_steps(table):
      raise ValueError(
        f'table {table.name!r}: with {environments} environments of the source '
        f'{source!r} steps are overwritten before their items are complete: it holds '
        f'{max_steps(table)} steps and needs at least {needed}; declare max_steps'
      )

  def _await(self, changed: threading.Condition, passing: Callable[[], float]) -> float:
    while (passes := passing()) < 1:
      changed.wait()
      self._check_running()
    return passes

  def _room(self) -> float:
    passes = room(self._declared.limiter, self.table.standing)
    return min(passes, self._declared.max_size)

  def _credit(self) -> float:
    at = self.table.standing
    passes = credit(self._declared.limiter, at)
    if self._declared.max_times_sampled:
      # Each draw may be its item's last: so many can't bring it below the minimal size.
      return min(passes, at.size - self._declared.limiter.min_size + 1)
    return passes

  def _check_running(self) -> None:
    if self._stopping:
      raise CallCancelled('replay is stopping')
