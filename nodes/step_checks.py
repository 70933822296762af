"""Blocks of time steps as they are appended: what doesn't fit is a ValueError."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from dm_env import specs
from numpy.typing import ArrayLike, NDArray

from callsheet.agents.base import Table
from callsheet.agents.step_tables import step_columns


def check_steps(
  table: Table, steps: Mapping[str, ArrayLike]
) -> dict[str, NDArray[np.generic]]:
  """A block of time steps as arrays `[T, B, ...]`, B at least 1.

  Raises:
    ValueError: the block doesn't fit the table.
  """
  if table.steps is None:
    raise ValueError(
      f'table {table.name!r} takes whole items, not time steps: '
      f'insert({table.name!r}, columns); step_table() declares one that takes steps'
    )
  columns = step_columns(table.steps)
  if not isinstance(steps, Mapping) or set(steps) != set(columns):
    came: object = type(steps).__name__
    if isinstance(steps, Mapping):
      came = sorted(map(str, steps))
    raise _misfit(table, columns, f'expected {sorted(columns)}, came {came}')
  block: dict[str, NDArray[np.generic]] = {}
  for name, spec in columns.items():
    column = np.asarray(steps[name])
    fits = column.ndim == len(spec.shape) + 2 and column.shape[2:] == tuple(spec.shape)
    if column.dtype != spec.dtype or not fits:
      shape = f'{column.dtype} {list(column.shape)}'
      what = f'{name!r} expected {_shown(spec)}, came {shape}'
      raise _misfit(table, columns, what)
    block[name] = column
  leading = {name: column.shape[:2] for name, column in block.items()}
  if len(set(leading.values())) > 1:
    raise _misfit(table, columns, f'expected one [T, B] for all, came {leading}')
  if not block['step_type'].shape[1]:
    raise _misfit(table, columns, 'expected B >= 1 environments, came 0')
  if not np.isin(step_type := block['step_type'], (0, 1, 2)).all():
    raise _misfit(
      table,
      columns,
      f'step_type is 0 (FIRST), 1 (MID) or 2 (LAST), came {np.unique(step_type)}',
    )
  return block


def _misfit(table: Table, columns: Mapping[str, specs.Array], what: str) -> ValueError:
  right = ', '.join(f'{name!r}: {_shown(spec)}' for name, spec in columns.items())
  call = f'append({table.name!r}, source, {{{right}}})'
  return ValueError(f'table {table.name!r}: {what}; the call would be {call}')


def _shown(spec: specs.Array) -> str:
  return f'{np.dtype(spec.dtype)} [{", ".join(["T", "B", *map(str, spec.shape)])}]'
