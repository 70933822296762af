"""Columns in memory, made once: `[size, ...]` each.

Those of small items lie beside each other, item by item: to draw one is to wait for one
line of memory, not for one of each column. A large one is an array of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from dm_env import specs
from numpy.typing import NDArray

_SMALL_BYTES = 64

Rows = dict[str, NDArray[np.generic]]


class Columns:
  """The arrays.

  Attributes:
    views: each column, to be read and written.
  """

  def __init__(self, columns: Mapping[str, specs.Array], size: int) -> None:
    small = np.empty(size, _small(columns))
    self._small = small if small.dtype.itemsize else None
    self.views: Rows = {}
    for name, spec in columns.items():
      if name in (small.dtype.names or ()):
        self.views[name] = small[name]
      else:
        self.views[name] = np.empty((size, *spec.shape), spec.dtype)
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


def row_bytes(columns: Mapping[str, specs.Array]) -> int:
  """Bytes that one row takes in its columns."""
  small = _small(columns)
  large = (spec for name, spec in columns.items() if name not in (small.names or ()))
  return small.itemsize + sum(map(_bytes, large))


def _small(columns: Mapping[str, specs.Array]) -> np.dtype[np.void]:
  fields = [
    (name, np.dtype(spec.dtype), tuple(spec.shape))
    for name, spec in columns.items()
    if 0 < _bytes(spec) <= _SMALL_BYTES
  ]
  return np.dtype(fields, align=True)


def _bytes(spec: specs.Array) -> int:
  width: int = math.prod(spec.shape)
  return width * np.dtype(spec.dtype).itemsize
