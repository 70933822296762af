"""Columns, made once: `[slots, ...]` each.

Those of small items lie beside each other, item by item: to draw one is to wait for one
line of memory, not for one of each column. A large one is an array of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dm_env import specs
from numpy.typing import NDArray

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

  def __init__(
    self, columns: Mapping[str, specs.Array], slots: int, directory: Path | None = None
  ) -> None:
    self.storage = Storage(slots, _layout(columns), directory)
    arrays = self.storage.arrays
    small: Any = arrays.get(_SMALL)
    self._small = small
    self.views: Rows = {
      name: arrays[name] if name in arrays else small[name] for name in columns
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


def row_bytes(columns: Mapping[str, specs.Array]) -> int:
  """Bytes that one row takes in its columns."""
  return slot_bytes(_layout(columns))


def _layout(columns: Mapping[str, specs.Array]) -> dict[str, np.dtype[np.generic]]:
  small = _small(columns)
  layout: dict[str, np.dtype[np.generic]] = {
    name: np.dtype((spec.dtype, tuple(spec.shape)))
    for name, spec in columns.items()
    if name not in (small.names or ())
  }
  return {_SMALL: small, **layout} if small.itemsize else layout


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
