"""A table as it was at one moment, while writers go on: what they overwrite is kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Rows = dict[str, NDArray[np.generic]]


class Snapshot:
  """Made and used under the table's lock.

  Attributes:
    slots: of the items, the oldest first.
    arrays: what there is for each item beside its columns, in that order.
    counters: of the table.
    kept: indices into `slots`, and their rows, that were overwritten before `taken`.
  """

  def __init__(
    self,
    slots: NDArray[np.int64],
    capacity: int,
    arrays: Mapping[str, NDArray[np.generic]],
    counters: Mapping[str, float],
  ) -> None:
    self.slots, self.arrays, self.counters = slots, dict(arrays), dict(counters)
    self.kept: list[tuple[NDArray[np.int64], Rows]] = []
    # Where in `slots` an item is that is still to be taken, by slot.
    self._pending = np.full(capacity, -1, np.int64)
    self._pending[slots] = np.arange(len(slots))

  def keep(
    self, slots: NDArray[np.int64], columns: Mapping[str, NDArray[np.generic]]
  ) -> None:
    """To be called before these slots are written."""
    pending = self._pending[slots]
    lost = pending >= 0
    if lost.any():
      rows = {name: column[slots[lost]] for name, column in columns.items()}
      self.kept.append((pending[lost], rows))
      self._pending[slots[lost]] = -1

  def taken(self, slots: NDArray[np.int64]) -> None:
    """These are copied: they may be overwritten."""
    self._pending[slots] = -1
