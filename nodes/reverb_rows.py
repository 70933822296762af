"""An item as one row of bytes: to Reverb it is a single uint8 tensor.

Reverb's cost is by column and item (about 10 us each way), so one packed column makes
writing and drawing several times as fast as one tensor for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table

Rows = NDArray[np.uint8]


def row_type(table: Table) -> np.dtype[np.void]:
  """One item of the table, packed."""
  fields = [
    (name, np.dtype(spec.dtype), tuple(spec.shape))
    for name, spec in table.columns.items()
  ]
  return np.dtype(fields)


def pack(row: np.dtype[np.void], columns: Mapping[str, NDArray[np.generic]]) -> Rows:
  """Columns `[N, ...]` to rows `[N, bytes]`."""
  count = len(next(iter(columns.values())))
  items = np.empty(count, row)
  for name, column in columns.items():
    items[name] = column
  return items.view(np.uint8).reshape(count, row.itemsize)


def unpack(
  row: np.dtype[np.void], rows: Rows, leading: tuple[int, ...]
) -> dict[str, NDArray[np.generic]]:
  """Rows `[N, bytes]` to contiguous columns `[*leading, ...]`, leading of N in all."""
  items = rows.reshape(-1).view(row)
  columns: dict[str, NDArray[np.generic]] = {}
  for name in row.names or ():
    column = np.ascontiguousarray(items[name])
    columns[name] = column.reshape(*leading, *column.shape[1:])
  return columns
