"""Weights that are drawn from in proportion: a sum tree, whole batches at a time.

A node has 8 children and its weight is summed anew whenever one of theirs changes:
nothing is ever added to a running total, so no error grows with the updates. Wide nodes
make the tree flat, and a step through it is a few calls of numpy for the whole batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FAN = 8
_WIDEST_TOP = 2048
# In the top, from where the guide points on.
_STEPS = 4
_BELOW = 1 - 2.0**-53  # of any normal number: the one below it

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class SumTree:
  """`size` weights, all 0 at first."""

  def __init__(self, size: int) -> None:
    self._levels: list[Floats] = []
    rows = size
    while not self._levels or rows > _WIDEST_TOP:
      rows = -(-rows // _FAN)
      self._levels.append(np.zeros((rows, _FAN)))
    self._weights = self._levels[0].reshape(-1)
    self._top = np.zeros(rows)
    # Of each level, where its rows' sums go.
    self._sums = [level.reshape(-1) for level in self._levels[1:]] + [self._top]
    self._cumulative: Floats | None = None
    self._guide: Indices | None = None

  @staticmethod
  def memory(size: int) -> int:
    """Bytes that a tree of so many weights takes."""
    taken, rows = 0, size
    while not taken or rows > _WIDEST_TOP:
      rows = -(-rows // _FAN)
      taken += 8 * _FAN * rows
    return taken + 24 * rows + 8

  @property
  def total(self) -> float:
    """The sum of all weights."""
    return float(self._running()[-1])

  def get(self, indices: Indices) -> Floats:
    """The weights at `[N]` indices."""
    return self._weights.take(indices)

  def set(self, indices: Indices, weights: Floats | float) -> None:
    """Sets the weights at `[N]` indices; of an index that comes twice the last holds.

    Args:
      indices: `[N]`, in range.
      weights: `[N]` or one for all, 0 or a normal number above, with a finite sum.
    """
    if not len(indices):
      return
    self._weights[indices] = weights
    rows = indices
    for level, sums in zip(self._levels, self._sums, strict=True):
      rows = _without_repeats(rows // _FAN)
      sums[rows] = np.einsum('ij->i', level.take(rows, axis=0))
    self._cumulative = self._guide = None

  def find(self, targets: Floats) -> Indices:
    """Where the running sum of the weights first exceeds each target.

    An index is never one of weight 0.

    Args:
      targets: `[N]`, from 0 up to the total, which has to be above 0.
    """
    count, running = len(targets), self._running()
    targets = np.minimum(targets, running[-1] * _BELOW)
    at = self._find_in_top(targets, running)
    rest = np.maximum(targets - running.take(at), 0.0)
    each = np.arange(count)
    sums = np.empty((_FAN + 1, count))
    sums[0] = 0.0
    for level in reversed(self._levels):
      # Children first: numpy sums long rows many times faster than short ones.
      sums[1:] = level.take(at, axis=0).T
      for child in range(2, _FAN + 1):
        np.add(sums[child - 1], sums[child], out=sums[child])
      # Rounding may have carried a target just over the edge of its node.
      np.minimum(rest, sums[-1] * _BELOW, out=rest)
      chosen = (sums[1:] <= rest).sum(axis=0)
      rest -= sums.reshape(-1).take(chosen * count + each)
      at = at * _FAN + chosen
    return at

  def _find_in_top(self, targets: Floats, running: Floats) -> Indices:
    ends, shares = running[1:], len(self._top)
    if len(targets) < shares:
      return ends.searchsorted(targets, side='right')
    # A binary search guesses wrong at every second step, which is slow. So a guide says
    # where the answer of each of many equal shares of the total begins.
    if self._guide is None:
      edges = np.arange(shares) * (running[-1] / shares)
      self._guide = ends.searchsorted(edges, side='right')
    share = (targets * (shares / running[-1])).astype(np.int64)
    at: Indices = self._guide.take(share, mode='clip')
    for _ in range(_STEPS):
      behind = ends.take(at) <= targets
      if not behind.any():
        return at
      at += behind
    rest = np.flatnonzero(ends.take(at) <= targets)
    at[rest] = ends.searchsorted(targets[rest], side='right')
    return at

  def _running(self) -> Floats:
    """The running sum over the top, a 0 ahead."""
    if self._cumulative is None:
      self._cumulative = np.zeros(len(self._top) + 1)
      self._top.cumsum(out=self._cumulative[1:])
    return self._cumulative


def _without_repeats(rows: Indices) -> Indices:
  """Drops repeats that follow each other, as a block of neighbours has them."""
  if len(rows) < 2:
    return rows
  first = np.empty(len(rows), np.bool_)
  first[0] = True
  np.not_equal(rows[1:], rows[:-1], out=first[1:])
  return rows[first]
