"""One table in memory: its columns, its keys, its priorities. It knows no locks.

Columns are arrays `[max_size, ...]` that are made once; an item is one row of each. A
block is one write a column, a batch one gather a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callsheet import results
from callsheet.agents.base import Table
from callsheet.nodes.limiting import Standing
from callsheet.nodes.native_columns import Columns, row_bytes
from callsheet.nodes.native_draws import Draws, shares, use_up
from callsheet.nodes.native_selectors import Order, Selection
from callsheet.nodes.native_slots import Places, Pool, Ring, Slots
from callsheet.nodes.native_snapshot import Snapshot
from callsheet.nodes.native_steps import Made, StepRing, item_columns
from callsheet.nodes.native_storage import Rows, Storage
from callsheet.nodes.step_items import new_columns
from callsheet.nodes.step_streams import Stream
from callsheet.nodes.sum_tree import Floats

Block = Mapping[str, NDArray[np.generic]]


class NativeTable:
  """The items of one table.

  Attributes:
    declared: what it was made from.
    storages: all its arrays of rows, by name, as checkpoints have them.
    ring: the time steps that items show, where it is fed with these.
    standing: where it stands under its limiter.
  """

  def __init__(
    self, table: Table, directory: Path | None = None, seed: int | None = None
  ) -> None:
    """Makes it.

    Args:
      table: what it holds.
      directory: where its columns are mapped from; None for memory.
      seed: of its draws; None for another one each time.
    """
    self.declared = table
    self.ring = None if table.steps is None else StepRing(table, directory)
    self._stored = Columns(item_columns(table), table.max_size, directory)
    self._columns = self._stored.views
    self._row_bytes = row_bytes(item_columns(table))
    self.storages: dict[str, Storage] = {'items': self._stored.storage}
    if self.ring is not None:
      self.storages['steps'] = self.ring.storage
    in_turn = table.remover == 'fifo' and not table.max_times_sampled
    in_turn = in_turn and self.ring is None
    self._pool = None if in_turn else Pool(table.max_size)
    self._places: Places = self._pool or Ring(table.max_size)
    # Draws that each item has left, where they are limited.
    self._left = np.zeros(table.max_size if table.max_times_sampled else 0, np.int64)
    self._highest, self._inserted, self._sampled = 1.0, 0, 0
    self._generator = np.random.default_rng(seed)
    self._selection = Selection(table, self._places, self._generator)
    self._tree = self._selection.tree

  @property
  def standing(self) -> Standing:
    return Standing(self._places.size, self._inserted, self._sampled)

  @property
  def mass(self) -> float:
    """What the sampler draws in proportion to, summed up."""
    return float(self._places.size if self._tree is None else self._tree.total)

  @property
  def next_serial(self) -> int:
    """The serial number of the next item."""
    return self._places.serial

  def serials(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The serial numbers `[N]` of keys, whether their items are still there or not."""
    return self._places.serials(keys).astype(np.int64)

  def write(self, block: Block, weights: Floats | None, part: slice) -> None:
    """Stores the rows of `part`, at most `max_size` of them.

    Args:
      block: columns `[N, ...]`.
      weights: `[N]`, as `weigh` gave them; None for that of the highest priority.
      part: start and stop within N.
    """
    count, free = part.stop - part.start, self.declared.max_size - self._places.size
    self._inserted += count
    values: Floats | float = (
      self._selection.value(self._highest) if weights is None else weights[part]
    )
    if self._selection.remover is None or count <= free:
      self._store(self._places.take(count), block, part, values)
      return
    values = np.full(count, values) if weights is None else weights[part]
    if free:
      first = slice(part.start, part.start + free)
      self._store(self._places.take(free), block, first, values[:free])
    placed = self._selection.crowd_out(values[free:])
    if placed and self._pool is not None:
      slots, rows = np.array(sorted(placed.items(), key=lambda item: item[1])).T
      self._pool.replace(slots)
      self._store(slots, block, part.start + free + rows, values[free:][rows])

  def append(self, stream: Stream, block: Block) -> Made:
    """Stores time steps `[T, B, ...]`; items that show what they overwrite leave.

    Returns:
      the items that they complete, which are still to be written.
    """
    if self.ring is None or self._pool is None:
      raise AssertionError(f'{self.declared.name!r} is not fed with time steps')
    keys = self.ring.in_the_way(block['step_type'].size)
    keys = keys[self._places.alive(keys)]
    if len(keys):
      slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
      self._pool.remove(slots)
      self._selection.remove(slots)
    return self.ring.write(stream, block)

  def new_draws(self, count: int) -> Draws:
    """Room for so many draws."""
    return Draws(
      self._new_columns(count),
      np.empty(count, np.uint64),
      np.empty(count, np.float32),
      np.empty(count, np.int32),
    )

  def _new_columns(self, count: int) -> Rows:
    if self.declared.steps is not None:
      return new_columns(self.declared.steps, count)
    shapes = {
      name: ((count, *column.shape[1:]), column.dtype)
      for name, column in self._columns.items()
    }
    if count * self._row_bytes < results.SMALLEST:
      return {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
    return results.empty(shapes)

  def draw(self, into: Draws, part: slice) -> None:
    """Fills the rows of `part`; the table may not run empty before the last of them."""
    done = part.start
    while done < part.stop:
      size: NDArray[np.int64] | int = self._places.size
      slots, share = self._choose(part.stop - done)
      gone = None
      if self._pool is not None and self.declared.max_times_sampled:
        slots, last = use_up(self._left, slots)
        gone_before: NDArray[np.int64] = np.cumsum(last) - last
        sizes = self._pool.size - gone_before
        size, share = sizes, self._shares(slots, last, sizes)
        gone = slots[last]
      now = slice(done, done + len(slots))
      self._gather(slots, into.columns, now)
      into.keys[now] = self._places.keys(slots)
      into.probabilities[now] = share
      into.sizes[now] = size
      if self._pool is not None and gone is not None:
        self._pool.remove(gone)
        self._selection.remove(gone)
      self._sampled += len(slots)
      done = now.stop

  def update(self, keys: NDArray[np.uint64], weights: Floats) -> None:
    """Sets weights `[N]`; keys of items that left are passed over."""
    if not self._selection.heeds_priorities:
      return
    alive = self._places.alive(keys)
    if not alive.all():
      keys, weights = keys[alive], weights[alive]
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    self._selection.update(slots, weights)

  def raise_highest(self, priorities: Floats) -> None:
    """Takes note of priorities `[N]`, N at least 1, that come in."""
    self._highest = max(self._highest, float(priorities.max()))

  def begin_snapshot(self) -> Snapshot:
    """What the table holds now, to be written down while it goes on.

    Its storages have begun too; all ends with `end_snapshot`.
    """
    keys = self._places.live()
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    arrays: dict[str, NDArray[np.generic]] = {'keys': keys}
    arrays.update(self._selection.arrays(slots))
    if self.declared.max_times_sampled:
      arrays['left'] = self._left[slots]
    counters = {
      'serial': self._places.serial,
      'inserted': self._inserted,
      'sampled': self._sampled,
      'highest_priority': self._highest,
      'steps': 0 if self.ring is None else self.ring.written,
    }
    chunks = {name: storage.begin() for name, storage in self.storages.items()}
    return Snapshot(arrays, counters, chunks)

  def end_snapshot(self, completed: bool) -> None:
    """It is written down, or was given up."""
    for storage in self.storages.values():
      storage.end(completed)

  def rows(self, slots: Slots) -> dict[str, NDArray[np.generic]]:
    """Copies of the columns at these slots."""
    return {
      name: column.take(slots, axis=0, mode='clip')
      for name, column in self._columns.items()
    }

  def items(self) -> Rows:
    """All items `[N, ...]`, the oldest first, as they would be drawn."""
    slots = self._live()
    columns = self._new_columns(len(slots))
    self._gather(slots, columns, slice(0, len(slots)))
    return columns

  def rows_shown(self) -> NDArray[np.int64]:
    """The rows of steps, `[N, L + 1]`, that sequences show, the oldest item first."""
    if self.ring is None:
      raise AssertionError(f'{self.declared.name!r} is not fed with time steps')
    return self.ring.shown(self.rows(self._live()))

  def restore(
    self, arrays: Mapping[str, NDArray[np.generic]], counters: Mapping[str, float]
  ) -> None:
    """Takes over a snapshot, except for its storages."""
    keys = arrays['keys'].astype(np.uint64)
    slots = (keys % np.uint64(self.declared.max_size)).astype(np.int64)
    self._places.restore(keys, int(counters['serial']))
    self._selection.restore(slots, arrays)
    if self.declared.max_times_sampled:
      self._left[slots] = arrays['left'].astype(np.int64)
    self._inserted, self._sampled = int(counters['inserted']), int(counters['sampled'])
    self._highest = counters['highest_priority']
    if self.ring is not None:
      self.ring.written = int(counters['steps'])

  def end_restore(self) -> None:
    """To be called when the storages are restored as well."""
    if self.ring is not None:
      self.ring.restore(self._places.live(), self.rows(self._live()))

  def _live(self) -> Slots:
    keys = self._places.live()
    return (keys % np.uint64(self.declared.max_size)).astype(np.int64)

  def _store(
    self, slots: Slots, block: Block, rows: slice | Slots, values: Floats | float
  ) -> None:
    """Puts rows of the block into these slots, and tells sampler and remover."""
    first, last = int(slots[0]), int(slots[-1])
    # Only a ring is known to have no gaps in between.
    run = self._pool is None and last - first == len(slots) - 1
    where = slice(first, last + 1) if run else slots
    self._stored.storage.touch(where)
    for name, column in self._columns.items():
      column[where] = block[name][rows]
    if self.declared.max_times_sampled:
      self._left[slots] = self.declared.max_times_sampled
    if self.ring is not None:
      self.ring.register(self._places.keys(slots), block, rows)
    if self._selection.heeds_priorities:
      self._selection.set(slots, values)

  def _gather(self, slots: Slots, into: Rows, part: slice) -> None:
    if self.ring is None:
      self._stored.gather(slots, into, part)
    else:
      self.ring.gather(self.rows(slots), into, part)

  def _choose(self, count: int) -> tuple[Slots, Floats | float]:
    """So many slots, and with what probability each was chosen."""
    if self._selection.order is not None:
      return self._in_order(self._selection.order, count), 1.0
    total = self._tree.total if self._tree is not None else 0.0
    if self._tree is None or total <= 0:
      # Where every priority is 0, all are drawn alike, as Reverb does it.
      slots = self._places.draw(self._generator, count)
      return slots, 1 / self._places.size
    slots = self._tree.find(self._generator.random(count) * total)
    return slots, self._tree.get(slots) / total

  def _in_order(self, order: Order, count: int) -> Slots:
    """So many slots, each as often as its item may be drawn, in this order."""
    if not self.declared.max_times_sampled:
      return np.repeat(order.first(1), count)
    slots = order.first(count)
    return np.repeat(slots, self._left[slots])[:count]

  def _shares(
    self, slots: Slots, last: NDArray[np.bool_], sizes: NDArray[np.int64]
  ) -> Floats:
    """The probability of each draw among the items that were there at that draw."""
    if self._selection.order is not None:
      return np.ones(len(slots))
    if self._tree is None or self._tree.total <= 0:
      return 1 / sizes
    return shares(self._tree.get(slots), last, self._tree.total)
