"""How a table in memory chooses: the items to be drawn, and the ones that leave.

`Table` says what each selector is. Draws that are no matter of chance are the first
items of an order, each as often as it may be drawn. What the removers other than fifo
do to a full table is done item by item, as Reverb does it: the newcomer is stored, and
then one item leaves, which may be the newcomer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.nodes.native_heap import Heap
from callsheet.nodes.native_slots import Places, Slots
from callsheet.nodes.sum_tree import Floats, SumTree

HEAPS = frozenset({'min_heap', 'max_heap'})


class Order(Protocol):
  """An order of items."""

  def first(self, count: int) -> Slots:
    """The slots of the first so many, or of all if there are fewer."""
    ...


class Remover(Protocol):
  """Who leaves a full table."""

  def crowd_out(self, priorities: Floats) -> dict[int, int]:
    """Lets N newcomers in, one by one; each time one leaves.

    Args:
      priorities: `[N]` of the newcomers, or their weights to a prioritized remover.

    Returns:
      of the newcomers that are still there, each one's place among them by its slot.
    """
    ...


class Oldest:
  """The order in which they came."""

  def __init__(self, places: Places) -> None:
    self._places = places

  def first(self, count: int) -> Slots:
    return self._places.oldest(count)


class Newest:
  """The order in which they came, from its end."""

  def __init__(self, places: Places) -> None:
    self._places = places

  def first(self, count: int) -> Slots:
    return self._places.newest(count)

  def crowd_out(self, priorities: Floats) -> dict[int, int]:
    return {}  # Each newcomer is the newest.


class AnyItem:
  """Each as likely as the others."""

  def __init__(self, capacity: int, generator: np.random.Generator) -> None:
    self._capacity, self._generator = capacity, generator

  def crowd_out(self, priorities: Floats) -> dict[int, int]:
    count = len(priorities)
    leaving = self._generator.integers(0, self._capacity + 1, count).tolist()
    placed = {slot: row for row, slot in enumerate(leaving)}
    placed.pop(self._capacity, None)  # The newcomer itself left.
    return placed


class ByWeight:
  """In proportion to weights; all alike where each is 0.

  Args:
    tree: the weights of the items; it is kept up to date by this one while newcomers
      come in.
    capacity: of the table.
    generator: draws.
  """

  def __init__(
    self, tree: SumTree, capacity: int, generator: np.random.Generator
  ) -> None:
    self._tree, self._capacity, self._generator = tree, capacity, generator

  def crowd_out(self, weights: Floats) -> dict[int, int]:
    placed: dict[int, int] = {}
    for row, weight in enumerate(weights.tolist()):
      there = self._tree.total
      if there + weight <= 0:
        slot = int(self._generator.integers(0, self._capacity + 1))
        if slot < self._capacity:
          placed[slot] = row
        continue
      target = self._generator.random() * (there + weight)
      if target < there:
        found = self._tree.find(np.array([target]))
        self._tree.set(found, weight)
        placed[int(found[0])] = row
    return placed


class Selection:
  """The sampler and the remover of a table, and what they know of its items.

  Priorities come as `weigh` gives them: weights, unless there is a heap.

  Attributes:
    order: the sampler's, where it leaves nothing to chance.
    tree: the sampler's, where it is prioritized.
    remover: None for fifo, which is what the places do by themselves.
    heeds_priorities: whether they matter to anybody.
  """

  def __init__(
    self, table: Table, places: Places, generator: np.random.Generator
  ) -> None:
    size, kinds = table.max_size, (table.sampler, table.remover)
    self._exponent = table.priority_exponent
    self._weights = SumTree(size) if 'prioritized' in kinds else None
    self._heaps = {kind: Heap(size, kind == 'max_heap') for kind in HEAPS & {*kinds}}
    self.tree = self._weights if table.sampler == 'prioritized' else None
    orders: dict[str, Order] = {'fifo': Oldest(places), 'lifo': Newest(places)}
    orders.update(self._heaps)
    self.order = orders.get(table.sampler)
    removers: dict[str, Remover] = {'lifo': Newest(places), **self._heaps}
    removers['uniform'] = AnyItem(size, generator)
    if self._weights is not None:
      removers['prioritized'] = ByWeight(self._weights, size, generator)
    self.remover = removers.get(table.remover)
    self._remover_weighs = table.remover == 'prioritized'
    self.heeds_priorities = bool(self._heaps) or self._weights is not None

  def value(self, priority: float) -> float:
    """What stands for one priority."""
    return priority if self._heaps else priority**self._exponent

  def set(self, slots: Slots, values: Floats | float) -> None:
    """Takes note of items, or of their new priorities; no slot comes twice."""
    if self._weights is not None:
      self._weights.set(slots, self._weigh(values))
    for heap in self._heaps.values():
      heap.set(slots, np.broadcast_to(values, slots.shape))

  def update(self, slots: Slots, values: Floats) -> None:
    """Sets new priorities; of a slot that comes twice the last one."""
    if self._heaps:
      last = dict(zip(slots.tolist(), values.tolist(), strict=True))
      slots = np.array(list(last), np.int64)
      values = np.array(list(last.values()), np.float64)
    self.set(slots, values)

  def remove(self, slots: Slots) -> None:
    """Forgets items."""
    if self._weights is not None:
      self._weights.set(slots, 0.0)
    for heap in self._heaps.values():
      heap.remove(slots)

  def crowd_out(self, values: Floats) -> dict[int, int]:
    """See `Remover.crowd_out`; `set` has to follow."""
    assert self.remover is not None
    return self.remover.crowd_out(
      np.asarray(self._weigh(values)) if self._remover_weighs else values
    )

  def arrays(self, slots: Slots) -> dict[str, NDArray[np.generic]]:
    """All that there is to know of these items, to `restore` it."""
    known: dict[str, NDArray[np.generic]] = {}
    if self._weights is not None:
      known['weights'] = self._weights.get(slots)
    for kind, heap in self._heaps.items():
      known[f'{kind}_priorities'], known[f'{kind}_stamps'] = heap.of(slots)
    return known

  def restore(self, slots: Slots, known: Mapping[str, NDArray[np.generic]]) -> None:
    """Takes over items, where there are none, from what `arrays` gave."""
    if self._weights is not None:
      self._weights.set(slots, known['weights'].astype(np.float64))
    for kind, heap in self._heaps.items():
      order = np.argsort(known[f'{kind}_stamps'])
      heap.set(slots[order], known[f'{kind}_priorities'][order].astype(np.float64))

  def _weigh(self, values: Floats | float) -> Floats | float:
    if not self._heaps:
      return values
    return to_weights(np.asarray(values, np.float64), self._exponent)


def to_weights(priorities: Floats, exponent: float) -> Floats:
  """Priorities to a power; 0 stays 0 whatever the exponent, as in Reverb."""
  weights: Floats = np.asarray(priorities**exponent)
  # What is not even a normal number is 0 as well.
  weights[(priorities == 0) | (weights < sys.float_info.min)] = 0.0
  return weights


def weigh(table: Table, priorities: Floats) -> Floats:
  """Priorities as the table keeps them: to its power, where that is all it needs.

  Raises:
    ValueError: one of them is too large for a sum of them.
  """
  kinds = (table.sampler, table.remover)
  if 'prioritized' not in kinds:
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
  if HEAPS.intersection(kinds):
    return priorities
  return to_weights(priorities, table.priority_exponent)


def memory(table: Table) -> int:
  """Bytes that the sampler and the remover of a table take."""
  kinds = {table.sampler, table.remover}
  taken = len(kinds & HEAPS) * Heap.memory(table.max_size)
  return taken + ('prioritized' in kinds) * SumTree.memory(table.max_size)
