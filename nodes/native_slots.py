"""Which item of a table is where: keys that are never used twice, and the oldest first.

A key is `serial * capacity + slot` or, where no item leaves out of turn, the serial
number alone, whose slot is `serial % capacity`: either way the slot is the key modulo
the capacity, and a look at who lives there tells whether the item is still there.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Slots = NDArray[np.int64]


class Places(Protocol):
  """The items of a table.

  Attributes:
    size: how many there are.
    serial: of the next one.
  """

  size: int
  serial: int

  def take(self, count: int) -> Slots:
    """Slots `[count]` for new items, at most the capacity; the oldest make room."""
    ...

  def draw(self, generator: np.random.Generator, count: int) -> Slots:
    """Slots of live items, each as likely as the others."""
    ...

  def oldest(self, count: int) -> Slots:
    """Slots of the oldest so many, of all if there are fewer, the oldest first."""
    ...

  def newest(self, count: int) -> Slots:
    """Slots of the newest so many, of all if there are fewer, the newest first."""
    ...

  def serials(self, keys: Keys) -> Keys:
    """The serial numbers in these keys."""
    ...

  def keys(self, slots: Slots) -> Keys:
    """The keys of live items."""
    ...

  def alive(self, keys: Keys) -> NDArray[np.bool_]:
    """Whether the items of these keys are still there."""
    ...

  def live(self) -> Keys:
    """All keys, the oldest item's first."""
    ...

  def restore(self, keys: Keys, serial: int) -> None:
    """Takes the place of what `live` and `serial` once gave."""
    ...


class Ring:
  """Items that leave in the order in which they came; needs no memory."""

  def __init__(self, capacity: int) -> None:
    self.size, self.serial = 0, 0
    self._capacity = capacity

  def take(self, count: int) -> Slots:
    slots = (self.serial + np.arange(count)) % self._capacity
    self.serial += count
    self.size = min(self.size + count, self._capacity)
    return slots

  def draw(self, generator: np.random.Generator, count: int) -> Slots:
    # The live ones are the first slots, and later all of them.
    return (generator.random(count) * self.size).astype(np.int64)

  def oldest(self, count: int) -> Slots:
    first = self.serial - self.size
    return np.arange(first, first + min(count, self.size)) % self._capacity

  def newest(self, count: int) -> Slots:
    last = self.serial - 1
    return np.arange(last, last - min(count, self.size), -1) % self._capacity

  def serials(self, keys: Keys) -> Keys:
    return keys

  def keys(self, slots: Slots) -> Keys:
    if self.serial <= self._capacity:
      return slots.astype(np.uint64)
    newest = self.serial - 1
    return (newest - (newest - slots) % self._capacity).view(np.uint64)

  def alive(self, keys: Keys) -> NDArray[np.bool_]:
    oldest, end = np.uint64(self.serial - self.size), np.uint64(self.serial)
    return (keys >= oldest) & (keys < end)

  def live(self) -> Keys:
    return np.arange(self.serial - self.size, self.serial, dtype=np.uint64)

  def restore(self, keys: Keys, serial: int) -> None:
    self.size, self.serial = len(keys), serial


class Pool:
  """Items that may leave in any order.

  `_order[_first:_last]` has the keys in the order in which they came, with those that
  left in between still among them: never more than there are live ones.
  """

  def __init__(self, capacity: int) -> None:
    self.size, self.serial = 0, 1
    self._capacity = capacity
    self._present = np.zeros(capacity, np.uint64)
    self._free = np.arange(capacity - 1, -1, -1)
    self._order = np.empty(2 * capacity, np.uint64)
    self._first = self._last = 0

  @staticmethod
  def memory(capacity: int) -> int:
    """Bytes that a pool takes."""
    return 32 * capacity

  def take(self, count: int) -> Slots:
    if (crowd := self.size + count - self._capacity) > 0:
      self._remove_oldest(crowd)
    free = self._capacity - self.size
    slots = self._free[free - count : free][::-1].copy()
    self.size += count
    self._move_in(slots)
    return slots

  def replace(self, slots: Slots) -> None:
    """Puts new items into slots in use, none twice, in this order."""
    self._move_in(slots)

  def remove(self, slots: Slots) -> None:
    """Frees slots, each of a live item, none twice."""
    self._release(slots)
    if self._last - self._first > 2 * self.size:
      self._compact()

  def draw(self, generator: np.random.Generator, count: int) -> Slots:
    drawn = np.empty(count, np.int64)
    done = 0
    while done < count:
      keys = self._order[generator.integers(self._first, self._last, count - done)]
      keys = keys[self.alive(keys)]
      drawn[done : done + len(keys)] = keys % np.uint64(self._capacity)
      done += len(keys)
    return drawn

  def oldest(self, count: int) -> Slots:
    count, width = min(count, self.size), 2 * count
    while True:
      window = self._order[self._first : min(self._first + width, self._last)]
      alive = np.flatnonzero(self.alive(window))
      if len(alive) >= count:
        break
      width *= 2
    self._first += int(alive[0]) if count else 0
    return self._slots(window[alive[:count]])

  def newest(self, count: int) -> Slots:
    count, width = min(count, self.size), 2 * count
    while True:
      window = self._order[max(self._first, self._last - width) : self._last]
      alive = np.flatnonzero(self.alive(window))
      if len(alive) >= count:
        break
      width *= 2
    self._last -= len(window) - 1 - int(alive[-1]) if count else 0
    return self._slots(window[alive[::-1][:count]])

  def serials(self, keys: Keys) -> Keys:
    return keys // np.uint64(self._capacity)

  def keys(self, slots: Slots) -> Keys:
    return self._present[slots]

  def alive(self, keys: Keys) -> NDArray[np.bool_]:
    # No key is 0, which stands for nobody.
    present: NDArray[np.bool_] = self._present[keys % np.uint64(self._capacity)] == keys
    return present & (keys > 0)

  def live(self) -> Keys:
    keys = self._order[self._first : self._last]
    return keys[self.alive(keys)]

  def restore(self, keys: Keys, serial: int) -> None:
    slots = (keys % np.uint64(self._capacity)).astype(np.int64)
    self._present[:] = 0
    self._present[slots] = keys
    self.size, self.serial = len(keys), serial
    free = np.flatnonzero(self._present == 0)[::-1]
    self._free[: len(free)] = free
    self._order[: len(keys)] = keys
    self._first, self._last = 0, len(keys)

  def _remove_oldest(self, count: int) -> None:
    while count:
      window = self._order[self._first : self._first + count]
      victims = window[self.alive(window)]
      self._first += len(window)
      self._release((victims % np.uint64(self._capacity)).astype(np.int64))
      count -= len(victims)

  def _slots(self, keys: Keys) -> Slots:
    return (keys % np.uint64(self._capacity)).astype(np.int64)

  def _move_in(self, slots: Slots) -> None:
    count = len(slots)
    serials = np.arange(self.serial, self.serial + count, dtype=np.uint64)
    keys = serials * np.uint64(self._capacity) + slots.astype(np.uint64)
    if self._last + count > len(self._order):
      self._compact()
    self._present[slots] = keys
    self._order[self._last : self._last + count] = keys
    self._last += count
    self.serial += count

  def _release(self, slots: Slots) -> None:
    free = self._capacity - self.size
    # The last on the stack is taken first: so they are taken in this order again.
    self._free[free : free + len(slots)] = slots[::-1]
    self._present[slots] = 0
    self.size -= len(slots)

  def _compact(self) -> None:
    keys = self.live()
    self._order[: len(keys)] = keys
    self._first, self._last = 0, len(keys)
