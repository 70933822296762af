"""A replay table as Reverb does it, one item at a time: engines are held to it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Item:
  """What is stored.

  Attributes:
    value: of its only column.
    priority: as it was set last.
    inserted: how many came before it.
    changed: how many inserts and updates there were before its last one.
    draws: how often it was drawn.
  """

  value: int
  priority: float
  inserted: int
  changed: int
  draws: int = 0


class OneByOne:
  """A table whose sampler and remover leave nothing to chance."""

  def __init__(self, table):
    self.table = table
    self.items: list[Item] = []
    self.inserted = self.sampled = self._changes = 0
    self._highest = 1.0

  def first(self, selector):
    """The item that a selector chooses."""
    ranks = {
      'fifo': lambda item: item.inserted,
      'lifo': lambda item: -item.inserted,
      'min_heap': lambda item: (item.priority, item.changed),
      'max_heap': lambda item: (-item.priority, item.changed),
    }
    return min(self.items, key=ranks[selector])

  def insert(self, values, priorities=None):
    if priorities is None:
      priorities = [self._highest] * len(values)
    self._highest = max([self._highest, *priorities])
    for value, priority in zip(values, priorities, strict=True):
      self.items.append(Item(value, priority, self.inserted, self._changes))
      self.inserted += 1
      self._changes += 1
      if len(self.items) > self.table.max_size:
        self.items.remove(self.first(self.table.remover))

  def sample(self, count):
    """Pairs of a value and how many items there were."""
    drawn = []
    for _ in range(count):
      item = self.first(self.table.sampler)
      drawn.append((item.value, len(self.items)))
      self.sampled += 1
      item.draws += 1
      if item.draws == self.table.max_times_sampled:
        self.items.remove(item)
    return drawn

  def update(self, values, priorities):
    self._highest = max([self._highest, *priorities])
    # Of one that comes twice the last priority holds.
    for value, priority in dict(zip(values, priorities, strict=True)).items():
      for item in self.items:
        if item.value == value:
          item.priority, item.changed = priority, self._changes
          self._changes += 1

  def left(self):
    """Draws until it is empty, where they are limited."""
    return sum(self.table.max_times_sampled - item.draws for item in self.items)
