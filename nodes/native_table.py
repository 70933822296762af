"""One table in memory: its columns, its keys, its priorities. It knows no locks.

Columns are arrays `[max_size, ...]` that are made once; an item is one row of each. A
block is one write a column, a batch one gather a column.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from callsheet import results
from callsheet.agents.base import Table
from callsheet.nodes.limiting import Standing
from callsheet.nodes.native_columns import Columns, Rows
from callsheet.nodes.native_slots import Places, Pool, Ring, Slots
from callsheet.nodes.native_snapshot import Snapshot
from callsheet.nodes.native_steps import Made, StepRing, item_columns
from callsheet.nodes.step_items import new_columns
from callsheet.nodes.step_streams import Stream
from callsheet.nodes.sum_tree import Floats, SumTree

Block = Mapping[str, NDArray[np.generic]]


class Draws(NamedTuple):
  """N draws: columns `[N, ...]`, and keys, probabilities and table sizes `[N]`."""

  columns: dict[str, NDArray[np.generic]]
  keys: NDArray[np.uint64]
  probabilities: NDArray[np.float32]
  sizes: NDArray[np.int32]


class NativeTable:
  """The items of one table.

  Attributes:
    declared: what it was made from.
    columns: what is stored of an item itself.
    ring: the time steps that items show, where it is fed with these.
    standing: where it stands under its limiter.
  """

  def __init__(self, table: Table) -> None:
    self.declared = table
    self.ring = None if table.steps is None else StepRing(table)
    self._stored = Columns(self.columns, table.max_size)
    self._columns = self._stored.views
    self._limited = table.max_times_sampled > 0
    pooled = self._limited or self.ring is not None
    self._pool = Pool(table.max_size) if pooled else None
    self._places: Places = self._pool or Ring(table.max_size)
    # Draws that each item has left, where they are limited.
    self._left = np.zeros(table.max_size if self._limited else 0, np.int64)
    prioritized = table.sampler == 'prioritized'
    self._tree = SumTree(table.max_size) if prioritized else None
    self._highest, self._inserted, self._sampled = 1.0, 0, 0
    self._generator = np.random.default_rng()
    self._snapshot: Snapshot | None = None

  @property
  def columns(self) -> Mapping[str, specs.Array]:
    return item_columns(self.declared)

  @property
  def standing(self) -> Standing:
    return Standing(self._places.size, self._inserted, self._sampled)

  def write(self, block: Block, weights: Floats | None, part: slice) -> None:
    """Stores the rows of `part`, at most `max_size` of them.

    Args:
      block: columns `[N, ...]`.
      weights: `[N]`, as `weigh` gave them; None for that of the highest priority.
      part: start and stop within N.
    """
    slots = self._places.take(part.stop - part.start)
    if self._snapshot is not None:
      self._snapshot.keep(slots, self._columns)
    first, last = int(slots[0]), int(slots[-1])
    # Only a ring is known to have no gaps in between.
    run = self._pool is None and last - first == len(slots) - 1
    for name, column in self._columns.items():
      if run:
        column[first : last + 1] = block[name][part]
      else:
        column[slots] = block[name][part]
    if self._limited:
      self._left[slots] = self.declared.max_times_sampled
    if self.ring is not None:
      self.ring.register(self._places.keys(slots), dict(block), part)
    if self._tree is not None:
      highest = self._highest**self.declared.priority_exponent
      self._tree.set(slots, highest if weights is None else weights[part])
    self._inserted += len(slots)

  def append(self, stream: Stream, block: Block) -> Made:
    """Stores time steps `[T, B, ...]`; items that show what they overwrite leave.

    Returns:
      the items that they complete, which are still to be written.
    """
    assert self.ring is not None
    keys = self.ring.in_the_way(block['step_type'].size)
    keys = keys[self._places.alive(keys)]
    if len(keys):
      self._remove((keys % np.uint64(self.declared.max_size)).astype(np.int64))
    return self.ring.write(stream, block)

  def new_draws(self, count: int) -> Draws:
    """Room for so many draws."""
    steps = self.declared.steps
    return Draws(
      new_columns(steps, count)
      if steps is not None
      else results.empty(
        {
          name: ((count, *column.shape[1:]), column.dtype)
          for name, column in self._columns.items()
        }
      ),
      np.empty(count, np.uint64),
      np.empty(count, np.float32),
      np.empty(count, np.int32),
    )

  def draw(self, into: Draws, part: slice) -> None:
    """Fills the rows of `part`; the table may not run empty before the last of them."""
    done = part.start
    while done < part.stop:
      size: NDArray[np.int64] | int = self._places.size
      slots, share = self._choose(part.stop - done)
      gone = None
      if self._limited:
        slots, last = self._use_up(slots)
        gone_before: NDArray[np.int64] = np.cumsum(last) - last
        sizes = self._places.size - gone_before
        size, share = sizes, self._shares(slots, last, sizes)
        gone = slots[last]
      now = slice(done, done + len(slots))
      self._gather(slots, into.columns, now)
      into.keys[now] = self._places.keys(slots)
      into.probabilities[now] = share
      into.sizes[now] = size
      if gone is not None:
        self._remove(gone)
      self._sampled += len(slots)
      done = now.stop

  def update(self, keys: NDArray[np.uint64], weights: Floats) -> None:
    """Sets weights `[N]`; keys of items that left are passed over."""
    if self._tree is None:
      return
    alive = self._places.alive(keys)
    if not alive.all():
      keys, weights = keys[alive], weights[alive]
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    self._tree.set(slots, weights)

  def raise_highest(self, priorities: Floats) -> None:
    """Takes note of priorities `[N]`, N at least 1, that come in."""
    self._highest = max(self._highest, float(priorities.max()))

  def begin_snapshot(self) -> Snapshot:
    """What the table holds now, to be written down while it goes on.

    Ends with `end_snapshot`.
    """
    keys = self._places.live()
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    arrays: dict[str, NDArray[np.generic]] = {'keys': keys}
    if self._tree is not None:
      arrays['weights'] = self._tree.get(slots)
    if self._limited:
      arrays['left'] = self._left[slots]
    counters = {
      'serial': self._places.serial,
      'inserted': self._inserted,
      'sampled': self._sampled,
      'highest_priority': self._highest,
    }
    self._snapshot = Snapshot(slots, self.declared.max_size, arrays, counters)
    return self._snapshot

  def end_snapshot(self) -> None:
    self._snapshot = None

  def rows(self, slots: Slots) -> dict[str, NDArray[np.generic]]:
    """Copies of the columns at these slots."""
    return {
      name: column.take(slots, axis=0, mode='clip')
      for name, column in self._columns.items()
    }

  def restore(
    self, arrays: Mapping[str, NDArray[np.generic]], counters: Mapping[str, float]
  ) -> Slots:
    """Takes over a snapshot, except for its columns.

    Returns:
      the slot of each item, for `restore_rows`.
    """
    keys = arrays['keys'].astype(np.uint64)
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    self._places.restore(keys, int(counters['serial']))
    if self._tree is not None:
      self._tree.set(slots, arrays['weights'].astype(np.float64))
    if self._limited:
      self._left[slots] = arrays['left'].astype(np.int64)
    self._inserted, self._sampled = int(counters['inserted']), int(counters['sampled'])
    self._highest = counters['highest_priority']
    return slots

  def restore_rows(self, name: str, slots: Slots, rows: NDArray[np.generic]) -> None:
    """Sets one column at these slots."""
    self._columns[name][slots] = rows

  def end_restore(self) -> None:
    """To be called when all columns are restored, those of the steps included."""
    if self.ring is not None:
      keys = self._places.live()
      slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
      self.ring.restore_items(keys, self.rows(slots))

  def _gather(self, slots: Slots, into: Rows, part: slice) -> None:
    if self.ring is None:
      self._stored.gather(slots, into, part)
    else:
      self.ring.gather(self.rows(slots), into, part)

  def _remove(self, slots: Slots) -> None:
    assert self._pool is not None
    self._pool.remove(slots)
    if self._tree is not None:
      self._tree.set(slots, 0.0)

  def _choose(self, count: int) -> tuple[Slots, Floats | float]:
    """So many slots, and with what probability each was chosen."""
    total = self._tree.total if self._tree is not None else 0.0
    if self._tree is None or total <= 0:
      # Where every priority is 0, all are drawn alike, as Reverb does it.
      slots = self._places.draw(self._generator, count)
      return slots, 1 / self._places.size
    slots = self._tree.find(self._generator.random(count) * total)
    return slots, self._tree.get(slots) / total

  def _use_up(self, slots: Slots) -> tuple[Slots, NDArray[np.bool_]]:
    """Counts draws; those of an item that has none left by then are dropped.

    To drop them and to draw again is to draw from those that are left, one by one.

    Returns:
      the draws that stand, in their order, and whether it was its item's last.
    """
    order = np.argsort(slots, kind='stable')
    grouped = slots[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    lengths = np.diff(np.r_[starts, len(slots)])
    nth = np.empty(len(slots), np.int64)
    nth[order] = np.arange(len(slots)) - np.repeat(starts, lengths)
    left = self._left[slots] - nth
    stands = left >= 1
    kept = slots[stands]
    np.subtract.at(self._left, kept, 1)
    return kept, left[stands] == 1

  def _shares(
    self, slots: Slots, last: NDArray[np.bool_], sizes: NDArray[np.int64]
  ) -> Floats:
    """The probability of each draw among the items that were there at that draw."""
    if self._tree is None or self._tree.total <= 0:
      return 1 / sizes
    weights = self._tree.get(slots)
    gone = np.where(last, weights, 0.0)
    after = max(0.0, self._tree.total - gone.sum())
    # Summed from the end: no small remainder is left of a large difference.
    shares: Floats = weights / (after + gone[::-1].cumsum()[::-1])
    return shares


def weigh(table: Table, priorities: Floats) -> Floats:
  """Priorities to the table's power; 0 stays 0 whatever the exponent, as in Reverb.

  Raises:
    ValueError: one of them is too large for a sum of them.
  """
  if table.sampler != 'prioritized':
    return priorities
  highest = float(priorities.max(initial=0.0))
  try:
    fits = highest**table.priority_exponent <= sys.float_info.max / 4 / table.max_size
  except OverflowError:
    fits = False
  if not fits:
    raise ValueError(
      f'table {table.name!r}: priority {highest} to the power '
      f'{table.priority_exponent} is too large for a sum of {table.max_size} of them'
    )
  weights: Floats = priorities**table.priority_exponent
  # What is not even a normal number is 0 as well.
  weights[(priorities == 0) | (weights < sys.float_info.min)] = 0.0
  return weights
