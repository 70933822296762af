"""What every engine checks: tables as they are declared, blocks as they are written.

A table that could never work is a `UsageError`; a call that doesn't fit its table is a
`ValueError` that names table and column and shows the call that would be right.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
from dm_env import specs
from numpy.typing import ArrayLike, NDArray

from callsheet.agents import step_tables
from callsheet.agents.base import Limiter, Selector, Table
from callsheet.errors import UsageError
from callsheet.nodes.limiting import bounds, smallest_distance, smallest_error_buffer


def check_tables(tables: Sequence[Table]) -> dict[str, Table]:
  """The tables by name.

  Raises:
    UsageError: one of them is declared so that it could never work.
  """
  if not tables:
    raise UsageError('a replay needs a table: Table(name, columns, max_size=...)')
  by_name: dict[str, Table] = {}
  for table in tables:
    if table.name in by_name:
      raise UsageError(f'two tables are called {table.name!r}; names are unique')
    for complaint in _complaints(table):
      raise UsageError(f'table {table.name!r}: {complaint}')
    by_name[table.name] = table
  return by_name


def _complaints(table: Table) -> Iterable[str]:
  if not table.name:
    yield 'its name is empty'
  if not any(math.prod(spec.shape) for spec in table.columns.values()):
    yield 'no column holds anything; give columns={"observation": specs.Array(...)}'
  for name, spec in table.columns.items():
    if not name:
      yield 'a column has no name'
    if np.dtype(spec.dtype).hasobject:
      yield f'column {name!r} is of dtype object; columns hold numbers and booleans'
  if table.max_size < 1:
    yield f'max_size has to be at least 1, came {table.max_size}'
  known = get_args(Selector)
  for role, selector in (('sampler', table.sampler), ('remover', table.remover)):
    if selector not in known:
      yield f'{role} has to be one of {", ".join(map(repr, known))}, came {selector!r}'
  if not 0 <= table.priority_exponent < math.inf:
    yield f'priority_exponent has to be at least 0, came {table.priority_exponent}'
  if table.max_times_sampled < 0:
    yield f'max_times_sampled is 0 (no limit) or more, came {table.max_times_sampled}'
  yield from _limiter_complaints(table, table.limiter)
  yield from step_tables.complaints(table)


def _limiter_complaints(table: Table, limiter: Limiter) -> Iterable[str]:
  ratio, buffer = limiter.samples_per_insert, limiter.error_buffer
  if not 1 <= limiter.min_size <= table.max_size:
    yield (
      f'no sample could ever pass: min_size has to be from 1 to max_size '
      f'({table.max_size}), came {limiter.min_size}'
    )
  if ratio is None:
    if buffer is not None:
      yield 'error_buffer bounds nothing without samples_per_insert; give both or none'
    return
  if not 0 < ratio < math.inf:
    yield f'samples_per_insert has to be above 0 (None: no bound), came {ratio}'
  if 0 < table.max_times_sampled < ratio:
    yield (
      f'samples_per_insert {ratio} can never be met: an item leaves after '
      f'max_times_sampled = {table.max_times_sampled} draws'
    )
  if isinstance(buffer, tuple):
    yield from _bounds_complaints(limiter, ratio)
  elif buffer is not None and not smallest_error_buffer(ratio) <= buffer < math.inf:
    yield (
      f'actors and learners would wait for each other: error_buffer has to be at least '
      f'max(1, samples_per_insert) = {smallest_error_buffer(ratio)}, came {buffer}'
    )


def _bounds_complaints(limiter: Limiter, ratio: float) -> Iterable[str]:
  within = bounds(limiter)
  if not -math.inf < within.lowest <= within.highest < math.inf:
    yield f'error_buffer has to be (lowest, highest), came {limiter.error_buffer}'
  elif within.highest - within.lowest < (least := smallest_distance(ratio, within)):
    yield (
      f'actors and learners would wait for each other: the bounds in error_buffer have '
      f'to be at least {least:g} apart, came {limiter.error_buffer}'
    )
  elif within.lowest > ratio * limiter.min_size:
    yield (
      f'no sample would pass behind min_size = {limiter.min_size} items: the lower '
      f'bound in error_buffer is at most samples_per_insert * min_size = '
      f'{ratio * limiter.min_size:g}, came {limiter.error_buffer}'
    )


def find_table(tables: Mapping[str, Table], name: str) -> Table:
  """The table of that name, or a ValueError that knows the nearest one."""
  if name in tables:
    return tables[name]
  near = difflib.get_close_matches(str(name), tables, n=1)
  hint = (
    f'did you mean {near[0]!r}?' if near else f'it has {", ".join(map(repr, tables))}'
  )
  raise ValueError(f'the replay has no table {name!r}; {hint}')


def check_block(
  table: Table, columns: Mapping[str, ArrayLike], priorities: ArrayLike | None
) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.float64] | None, int]:
  """A block as arrays, in the order of the table's columns.

  Returns:
    columns `[N, ...]`, priorities `[N]` float64 or None, and N.

  Raises:
    ValueError: the block doesn't fit the table.
  """
  if table.steps is not None:
    raise ValueError(
      f'table {table.name!r} is fed with time steps, not with items: '
      f'append({table.name!r}, source, steps)'
    )
  if not isinstance(columns, Mapping) or set(columns) != set(table.columns):
    came: object = type(columns).__name__
    if isinstance(columns, Mapping):
      came = sorted(map(str, columns))
    raise _misfit(table, f'expected the columns {sorted(table.columns)}, came {came}')
  block: dict[str, NDArray[np.generic]] = {}
  for name, spec in table.columns.items():
    column = np.asarray(columns[name])
    fits = column.ndim == len(spec.shape) + 1 and column.shape[1:] == tuple(spec.shape)
    if column.dtype != spec.dtype or not fits:
      shape = f'{column.dtype} {list(column.shape)}'
      raise _misfit(table, f'column {name!r} expected {_shown(spec)}, came {shape}')
    block[name] = column
  lengths = {name: len(column) for name, column in block.items()}
  if len(set(lengths.values())) > 1:
    raise _misfit(table, f'expected one N for all columns, came {lengths}')
  count = next(iter(lengths.values()))
  if priorities is None:
    return block, None, count
  return block, _check_priorities(table.name, priorities, (count,)), count


def check_update(
  table: str, keys: ArrayLike, priorities: ArrayLike
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
  """Keys and priorities, flat; a ValueError if they don't fit each other."""
  keys = np.asarray(keys)
  if keys.dtype != np.uint64:
    raise ValueError(
      f'table {table!r}: keys expected uint64 as sample() gave them, '
      f'came {keys.dtype} {list(keys.shape)}'
    )
  return keys.ravel(), _check_priorities(table, priorities, keys.shape).ravel()


def check_sizes(table: Table, batch_size: int, num_batches: int) -> None:
  """A ValueError unless both are at least 1."""
  if batch_size < 1 or num_batches < 1:
    raise ValueError(
      f'table {table.name!r}: sample expected batch_size >= 1 and num_batches >= 1, '
      f'came {batch_size} and {num_batches}'
    )


def shown_bytes(count: int) -> str:
  """A number of bytes, as it is read: `1.50 GiB`."""
  if count >= 2**30:
    return f'{count / 2**30:.2f} GiB'
  return f'{count / 2**20:.1f} MiB'


def _check_priorities(
  table: str, priorities: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.float64]:
  given = np.asarray(priorities)
  if given.dtype.kind not in 'fiu' or given.shape != shape:
    raise ValueError(
      f'table {table!r}: priorities expected float {list(shape)}, '
      f'came {given.dtype} {list(given.shape)}'
    )
  values = given.astype(np.float64)
  wrong = ~(np.isfinite(values) & (values >= 0))
  if wrong.any():
    raise ValueError(
      f'table {table!r}: priorities are finite and at least 0, came '
      f'{values[wrong].flat[0]} (and {int(wrong.sum())} of {values.size} like it)'
    )
  return values


def _misfit(table: Table, what: str) -> ValueError:
  right = ', '.join(f'{name!r}: {_shown(spec)}' for name, spec in table.columns.items())
  call = f'insert({table.name!r}, {{{right}}})'
  return ValueError(f'table {table.name!r}: {what}; the call would be {call}')


def _shown(spec: specs.Array) -> str:
  return f'{np.dtype(spec.dtype)} [{", ".join(["N", *map(str, spec.shape)])}]'
