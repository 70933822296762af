"""The columns of a table, made once: `[max_size, ...]` each.

Those of small items lie beside each other, item by item: to draw one is to wait for one
line of memory, not for one of each column. A large one is an array of its own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.nodes.native_storage import Rows, Storage, slot_bytes

_SMALL_BYTES = 64
# No column has this name.
_SMALL = ''


class Columns:
  """The arrays.

  Attributes:
    storage: what they are stored in.
    views: each column, to be read, and to be written behind `storage.touch`.
  """

  def __init__(self, table: Table, directory: Path | None = None) -> None:
    self.storage = Storage(table.max_size, _layout(table), directory)
    arrays = self.storage.arrays
    small: Any = arrays.get(_SMALL)
    self._small = small
    self.views: Rows = {
      name: arrays[name] if name in arrays else small[name] for name in table.columns
    }
    self._large = [name for name in self.views if name in arrays]

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
  return slot_bytes(_layout(table))


def _layout(table: Table) -> dict[str, np.dtype[np.generic]]:
  small = _small(table)
  layout: dict[str, np.dtype[np.generic]] = {
    name: np.dtype((spec.dtype, tuple(spec.shape)))
    for name, spec in table.columns.items()
    if name not in (small.names or ())
  }
  return {_SMALL: small, **layout} if small.itemsize else layout


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
