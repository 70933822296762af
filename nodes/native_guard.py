"""One table for many callers: one lock, and waits that the law or a stop ends.

The law is the one of `callsheet.nodes.limiting`, item by item; what passes at once is
computed for the whole block, which is split only where it has to wait.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.agents.step_tables import fewest_steps, in_progress, max_steps
from callsheet.errors import CallCancelled
from callsheet.nodes import native_memory
from callsheet.nodes.limiting import Standing, passing_samples, room
from callsheet.nodes.native_draws import Draws
from callsheet.nodes.native_selectors import weigh
from callsheet.nodes.native_table import Block, NativeTable
from callsheet.nodes.patience import Patience, Side, WaitingRoom, too_late
from callsheet.nodes.step_streams import Source, Streams
from callsheet.nodes.sum_tree import Floats
from callsheet.nodes.table_statistics import (
  UNKNOWN_AGES,
  Ages,
  Pace,
  TableStatistics,
  describe,
)

_RECENT_CALLS = 16


class GuardedTable:
  """A table that waits.

  Attributes:
    lock: held by whoever looks at `table`.
    table: the items themselves.
    waiting: who waits, at either side.
  """

  def __init__(
    self, table: Table, directory: Path | None = None, seed: int | None = None
  ) -> None:
    """Makes it; see `NativeTable`."""
    self.lock = threading.Lock()
    self.table = NativeTable(table, directory, seed)
    self.waiting: dict[Side, WaitingRoom] = {
      'sample': WaitingRoom(),
      'insert': WaitingRoom(),
    }
    self._declared = table
    self._written = threading.Condition(self.lock)
    self._drawn = threading.Condition(self.lock)
    # Keys of the last calls, and the serial number behind: they tell ages if asked.
    self._recent: deque[tuple[int, NDArray[np.uint64]]] = deque(maxlen=_RECENT_CALLS)
    self._streams = Streams(table)
    self._turn = threading.Condition(self.lock)
    self._appending = self._stopping = False

  def insert(
    self,
    block: Block,
    priorities: Floats | None,
    count: int,
    timeout: float | None = None,
  ) -> None:
    """Stores N = `count` items as the law lets them pass, within `timeout` seconds.

    Raises:
      ReplayTimeout: it took longer.
      CallCancelled: the replay stops.
    """
    patience = Patience(timeout)
    weights = None if priorities is None else weigh(self._declared, priorities)
    with self.lock:
      self._check_running()
      if priorities is not None and count:
        self.table.raise_highest(priorities)
      self._write(block, weights, count, patience)

  def append(
    self, source: Source, steps: Block, fresh: bool, timeout: float | None = None
  ) -> int:
    """Stores time steps `[T, B, ...]`, and as the law lets them pass the items.

    One source appends at a time: while it waits, nobody overwrites what its items show.

    Raises:
      ValueError: the block can't follow what the source has written.
      ReplayTimeout: it took longer; items that were not yet stored are lost.
      CallCancelled: the replay stops.
    """
    patience = Patience(timeout)
    length, environments = steps['step_type'].shape
    self._check_steps(source, environments)
    made = 0
    with self._streams.writing(source, steps['step_type'], fresh) as stream, self.lock:
      self._check_running()
      self._take_turn(patience)
      try:
        piece = max(1, max_steps(self._declared) // 4 // environments)
        for start in range(0, length, piece):
          block = {name: steps[name][start : start + piece] for name in steps}
          items = self.table.append(stream, block)
          self._write(items.block, None, items.number, patience)
          made += items.number
      finally:
        self._appending = False
        self._turn.notify()
    return made

  def sample(self, count: int, timeout: float | None = None) -> Draws:
    """Draws N = `count` items as the law lets them pass, within `timeout` seconds.

    Raises:
      ReplayTimeout: it took longer.
      CallCancelled: the replay stops.
    """
    patience = Patience(timeout)
    draws = self.table.new_draws(count)
    with self.lock:
      self._check_running()
      done = 0
      while done < count:
        if (passing := self._credit()) < 1:
          with self.waiting['sample'].seat():
            passing = self._await('sample', patience, done, count)
        part = slice(done, done + int(min(passing, count - done)))
        self.table.draw(draws, part)
        self._drawn.notify_all()
        done = part.stop
      self._recent.append((self.table.next_serial, draws.keys))
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

  def statistics(self, pace: Pace) -> TableStatistics:
    """How it stands; `pace` has had a look at it before."""
    with self.lock:
      self._check_running()
      at, mass, recent = self.table.standing, self.table.mass, list(self._recent)
    return describe(
      self._declared,
      at,
      pace,
      mass=mass,
      taken=native_memory.memory(self._declared),
      writers=self.waiting['insert'].now(),
      samplers=self.waiting['sample'].now(),
      ages=self._ages(recent),
    )

  def stop(self) -> None:
    """Ends every wait, now and later, with CallCancelled."""
    with self.lock:
      self._stopping = True
      self._written.notify_all()
      self._drawn.notify_all()
      self._turn.notify_all()

  def let_go(self) -> None:
    """Gives its memory and its disk back, once it is stopped. Idempotent."""
    with self.lock:
      # Whoever still comes finds a table, and is then told that it is stopped.
      self.table = NativeTable(
        dataclasses.replace(self._declared, max_size=1, steps=None)
      )

  def _write(
    self, block: Block, weights: Floats | None, count: int, patience: Patience
  ) -> None:
    done = 0
    while done < count:
      if (passing := self._room()) < 1:
        with self.waiting['insert'].seat():
          passing = self._await('insert', patience, done, count)
      part = slice(done, done + int(min(passing, count - done)))
      self.table.write(block, weights, part)
      self._written.notify_all()
      done = part.stop

  def _take_turn(self, patience: Patience) -> None:
    while self._appending:
      with self.waiting['insert'].seat():
        self._turn.wait(patience.left())
      self._check_running()
      if self._appending and patience.spent():
        at = self.table.standing
        raise too_late('insert', self._declared, at, patience, 0, 1)
    self._appending = True

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

  def _await(self, side: Side, patience: Patience, done: int, count: int) -> float:
    changed, passing = (
      (self._written, self._credit) if side == 'sample' else (self._drawn, self._room)
    )
    while (passes := passing()) < 1:
      if patience.spent():
        at = self.table.standing
        raise too_late(side, self._declared, at, patience, done, count)
      changed.wait(patience.left())
      self._check_running()
    return passes

  def _ages(self, recent: list[tuple[int, NDArray[np.uint64]]]) -> Ages:
    if not recent:
      return UNKNOWN_AGES
    ages = np.concatenate(
      [serial - 1 - self.table.serials(keys) for serial, keys in recent]
    )
    return Ages(float(ages.mean()), float(ages.max()))

  def _room(self) -> float:
    passes = room(self._declared.limiter, self.table.standing)
    return min(passes, self._declared.max_size)

  def _credit(self) -> float:
    at, table = self.table.standing, self._declared
    return passing_samples(table.limiter, table.max_times_sampled, at)

  def _check_running(self) -> None:
    if self._stopping:
      raise CallCancelled('replay is stopping')
