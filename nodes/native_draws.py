"""Draws from a table whose items leave with their last one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.nodes.native_slots import Slots
from callsheet.nodes.sum_tree import Floats


class Draws(NamedTuple):
  """N draws: columns `[N, ...]`, and keys, probabilities and table sizes `[N]`."""

  columns: dict[str, NDArray[np.generic]]
  keys: NDArray[np.uint64]
  probabilities: NDArray[np.float32]
  sizes: NDArray[np.int32]


def use_up(left: NDArray[np.int64], slots: Slots) -> tuple[Slots, NDArray[np.bool_]]:
  """Counts draws; those of an item that has none left by then are dropped.

  To drop them and to draw again is to draw from those that are left, one by one.

  Args:
    left: of every slot, the draws that its item has left; they are counted down.
    slots: `[N]`, drawn one after the other.

  Returns:
    the draws that stand, in their order, and whether it was its item's last.
  """
  order = np.argsort(slots, kind='stable')
  grouped = slots[order]
  starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
  lengths = np.diff(np.r_[starts, len(slots)])
  nth = np.empty(len(slots), np.int64)
  nth[order] = np.arange(len(slots)) - np.repeat(starts, lengths)
  remaining = left[slots] - nth
  stands = remaining >= 1
  kept = slots[stands]
  np.subtract.at(left, kept, 1)
  return kept, remaining[stands] == 1


def shares(weights: Floats, last: NDArray[np.bool_], total: float) -> Floats:
  """The probability of each draw among the items that were there at that draw.

  Args:
    weights: `[N]`, of what was drawn.
    last: `[N]`, whether it was its item's last draw: its weight goes.
    total: the weights of all items before the first draw.
  """
  gone = np.where(last, weights, 0.0)
  after = max(0.0, total - gone.sum())
  # Summed from the end: no small remainder is left of a large difference.
  found: Floats = weights / (after + gone[::-1].cumsum()[::-1])
  return found
