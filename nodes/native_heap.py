"""Items in the order of their priorities, the lowest or the highest first."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from callsheet.nodes.native_slots import Slots
from callsheet.nodes.sum_tree import Floats

# Of a tuple of two floats and an int on the heap, and its place there.
_ENTRY_BYTES = 180
_SLACK = 64


class Heap:
  """A priority for each slot that is in use; of equal ones the one set first is first.

  What is set anew or leaves stays on the heap until it comes up, or until most of the
  heap is such: its stamp, one for each setting, is no longer that of its slot.
  """

  def __init__(self, capacity: int, highest_first: bool) -> None:
    self._sign = -1.0 if highest_first else 1.0
    self._priorities = np.zeros(capacity)
    self._stamps = np.zeros(capacity, np.int64)
    self._next = 1
    self._entries: list[tuple[float, int, int]] = []
    self._live = 0

  @staticmethod
  def memory(capacity: int) -> int:
    """Bytes that one takes at most, about."""
    return 16 * capacity + _ENTRY_BYTES * (2 * capacity + _SLACK)

  def set(self, slots: Slots, priorities: Floats) -> None:
    """Sets priorities `[N]`, in this order; no slot comes twice."""
    stamps = np.arange(self._next, self._next + len(slots))
    self._next += len(slots)
    self._live += int((self._stamps[slots] == 0).sum())
    self._priorities[slots], self._stamps[slots] = priorities, stamps
    ranks = (self._sign * priorities).tolist()
    for entry in zip(ranks, stamps.tolist(), slots.tolist(), strict=True):
      heapq.heappush(self._entries, entry)
    self._tidy()

  def remove(self, slots: Slots) -> None:
    """Takes slots out, none twice."""
    self._live -= len(slots)
    self._stamps[slots] = 0
    self._tidy()

  def first(self, count: int) -> Slots:
    """The slots of the first so many, or of all if there are fewer."""
    found: list[tuple[float, int, int]] = []
    while self._entries and len(found) < count:
      entry = heapq.heappop(self._entries)
      if self._stamps[entry[2]] == entry[1]:
        found.append(entry)
    for entry in found:
      heapq.heappush(self._entries, entry)
    return np.array([slot for _, _, slot in found], np.int64)

  def crowd_out(self, priorities: Floats) -> dict[int, int]:
    """Lets N newcomers into a full table, one by one; each time the first one leaves.

    Returns:
      of the newcomers that are still there, each one's place among them by its slot.
    """
    placed: dict[int, int] = {}
    for row, rank in enumerate((self._sign * priorities).tolist()):
      first = self._top()
      if rank < first[0]:
        continue  # It is the first one itself.
      stamp, slot = self._next, first[2]
      self._next += 1
      heapq.heapreplace(self._entries, (rank, stamp, slot))
      self._priorities[slot], self._stamps[slot] = self._sign * rank, stamp
      placed[slot] = row
    return placed

  def of(self, slots: Slots) -> tuple[Floats, NDArray[np.int64]]:
    """Priorities `[N]` of slots, and when each was set."""
    return self._priorities[slots], self._stamps[slots]

  def _top(self) -> tuple[float, int, int]:
    while self._stamps[self._entries[0][2]] != self._entries[0][1]:
      heapq.heappop(self._entries)
    return self._entries[0]

  def _tidy(self) -> None:
    if len(self._entries) > 2 * self._live + _SLACK:
      self._entries = [e for e in self._entries if self._stamps[e[2]] == e[1]]
      heapq.heapify(self._entries)
