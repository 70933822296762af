"""The columns of a table in memory, made once: `[max_size, ...]` each.

Those of small items lie beside each other, item by item: to draw one is to wait for one
line of memory, not for one of each column. A large one is an array of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table

_SMALL_BYTES = 64

Rows = dict[str, NDArray[np.generic]]


class Columns:
  """The arrays.

  Attributes:
    views: each column, to be read and written.
  """

  def __init__(self, table: Table) -> None:
    small = np.empty(table.max_size, _small(table))
    self._small = small if small.dtype.itemsize else None
    self.views: Rows = {}
    for name, spec in table.columns.items():
      if name in (small.dtype.names or ()):
        self.views[name] = small[name]
      else:
        self.views[name] = np.empty((table.max_size, *spec.shape), spec.dtype)
    self._large = [n for n in self.views if n not in (small.dtype.names or ())]

  def gather(self, slots: NDArray[np.int64], into: Rows, part: slice) -> None:
    """Copies the rows at `[N]` slots to the N rows of `part`."""
    for name in self._large:
      # With mode='raise' numpy would copy once more.
      self.views[name].take(slots, axis=0, out=into[name][part], mode='clip')
    if self._small is not None:
      rows = self._small.take(slots, mode='clip')
      for name in rows.dtype.names or ():
        into[name][part] = rows[name]


def item_bytes(table: Table) -> int:
  """Bytes that one item takes in its columns."""
  large = (name for name in table.columns if name not in (_small(table).names or ()))
  return _small(table).itemsize + sum(_bytes(table, name) for name in large)


def _small(table: Table) -> np.dtype[np.void]:
  fields = [
    (name, np.dtype(spec.dtype), tuple(spec.shape))
    for name, spec in table.columns.items()
    if 0 < _bytes(table, name) <= _SMALL_BYTES
  ]
  return np.dtype(fields, align=True)


def _bytes(table: Table, name: str) -> int:
  spec = table.columns[name]
  width: int = math.prod(spec.shape)
  return width * np.dtype(spec.dtype).itemsize
