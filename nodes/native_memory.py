"""What a table of the native replay takes, and whether the machine has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes.native_columns import row_bytes
from callsheet.nodes.native_slots import Pool
from callsheet.nodes.native_steps import StepRing, item_columns
from callsheet.nodes.sum_tree import SumTree

_GIB = 2**30


def memory(table: Table) -> int:
  """Bytes that the native replay takes for a table, full or empty."""
  taken = table.max_size * row_bytes(item_columns(table))
  if table.sampler == 'prioritized':
    taken += SumTree.memory(table.max_size)
  if table.max_times_sampled or table.steps is not None:
    taken += Pool.memory(table.max_size)
  if table.max_times_sampled:
    taken += 8 * table.max_size
  if table.steps is not None:
    taken += StepRing.memory(table)
  return taken


def available() -> int | None:
  """Bytes that this process may still take; None where nothing tells."""
  limits = [limit for limit in (_unused(), _left_in_group()) if limit is not None]
  return min(limits, default=None)


def check_fits(tables: Sequence[Table]) -> None:
  """Refuses tables that the machine's available memory can't hold, before it is taken.

  Raises:
    UsageError: names the table, what it takes, what there is, and what would fit.
  """
  left = available()
  if left is None:
    return
  for table in tables:
    taken = memory(table)
    if taken > left:
      most = left // max(1, -(-taken // table.max_size))
      raise UsageError(
        f'table {table.name!r} would take {taken / _GIB:.2f} GiB ({table.max_size} '
        f'items of {-(-taken // table.max_size)} bytes), and {left / _GIB:.2f} GiB are '
        f'available here; a max_size of {most} would fit'
      )
    left -= taken


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
