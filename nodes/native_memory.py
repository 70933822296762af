"""What the tables of the native replay take, and whether the machine has it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes import native_selectors
from callsheet.nodes.native_columns import row_bytes
from callsheet.nodes.native_mapping import free_bytes
from callsheet.nodes.native_slots import Pool
from callsheet.nodes.native_steps import StepRing, item_columns
from callsheet.nodes.replay_checks import shown_bytes


def memory(table: Table, on_disk: bool = False) -> int:
  """Bytes of memory that the native replay takes for a table, full or empty."""
  taken = 0 if on_disk else columns(table)
  taken += native_selectors.memory(table)
  if table.max_times_sampled:
    taken += 8 * table.max_size
  if table.max_times_sampled or table.remover != 'fifo' or table.steps is not None:
    taken += Pool.memory(table.max_size)
  if table.steps is not None:
    taken += StepRing.memory(table)
  return taken


def columns(table: Table) -> int:
  """Bytes of its columns, which may be on disk."""
  own = table.max_size * row_bytes(item_columns(table))
  return own if table.steps is None else own + StepRing.on_disk(table)


def available() -> int | None:
  """Bytes that this process may still take; None where nothing tells."""
  limits = [limit for limit in (_unused(), _left_in_group()) if limit is not None]
  return min(limits, default=None)


def directories(
  tables: Sequence[Table], columns_directory: str | Mapping[str, str] | None
) -> dict[str, Path]:
  """Where the columns of which table are; those in memory are not among them.

  Raises:
    UsageError: there is no such table.
  """
  names = [table.name for table in tables]
  if columns_directory is None:
    return {}
  if isinstance(columns_directory, str):
    return {name: Path(columns_directory) for name in names}
  for name in columns_directory:
    if name not in names:
      raise UsageError(f'columns_directory names {name!r}; the tables are {names}')
  return {name: Path(place) for name, place in columns_directory.items()}


def check_fits(
  tables: Sequence[Table], on_disk: Mapping[str, Path] = MappingProxyType({})
) -> None:
  """Refuses tables that memory or a disk can't hold, before any of it is taken.

  Args:
    tables: all of a replay.
    on_disk: by table, where its columns are; those in memory are not among them.

  Raises:
    UsageError: names the table, what it takes, what there is, and what would fit.
  """
  left = available()
  for table in tables:
    taken = memory(table, table.name in on_disk)
    if left is not None:
      _check_table(table, taken, left, 'available here')
      left -= taken
  free: dict[int, int] = {}
  for table in tables:
    if (directory := on_disk.get(table.name)) is not None:
      there, disk = free_bytes(directory)
      there = free.setdefault(disk, there)
      _check_table(table, columns(table), there, f'free in {directory}')
      free[disk] = there - columns(table)


def stated(tables: Sequence[Table], on_disk: Mapping[str, Path]) -> str:
  """What the tables take, in words."""
  words = shown_bytes(sum(memory(table, table.name in on_disk) for table in tables))
  disks: dict[Path, int] = {}
  for table in tables:
    if (directory := on_disk.get(table.name)) is not None:
      disks[directory] = disks.get(directory, 0) + columns(table)
  return ', '.join(
    [
      f'{words} of memory',
      *(f'{shown_bytes(n)} in {place}' for place, n in disks.items()),
    ]
  )


def _check_table(table: Table, taken: int, left: int, where: str) -> None:
  if taken > left:
    each = max(1, -(-taken // table.max_size))
    raise UsageError(
      f'table {table.name!r} would take {shown_bytes(taken)} ({table.max_size} '
      f'items of {each} bytes), and {shown_bytes(left)} are {where}; '
      f'a max_size of {left // each} would fit'
    )


def _unused() -> int | None:
  try:
    for line in Path('/proc/meminfo').read_text().splitlines():
      if line.startswith('MemAvailable:'):
        return int(line.split()[1]) * 1024
    return None
  except OSError:
    pass
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (OSError, ValueError):
    return None


def _left_in_group() -> int | None:
  """What a container's limit leaves; cached files give way."""
  group = Path('/sys/fs/cgroup')
  try:
    most = (group / 'memory.max').read_text().strip()
    if most == 'max':
      return None
    now = int((group / 'memory.current').read_text())
    stat = (line.split() for line in (group / 'memory.stat').read_text().splitlines())
    cached = sum(int(n) for key, n in stat if key in ('inactive_file', 'active_file'))
    return max(0, int(most) - now + cached)
  except (OSError, ValueError):
    return None
