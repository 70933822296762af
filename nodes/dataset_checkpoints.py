"""Transitions from checkpoints of the native replay.

A table of transitions gives them as they were written: the n-step returns and the
discount are those of the run's agent. A table of sequences gives each of its steps
once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Sequences
from callsheet.errors import UsageError
from callsheet.nodes import native_memory, replay_folders
from callsheet.nodes.native_checkpoints import Checkpoints, Found
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.native_table import NativeTable

Columns = dict[str, NDArray[Any]]

# Where a run leaves its replay's, within its folder.
IN_RUN = Path('checkpoint', 'replay')


def read(source: str, discount: float) -> Columns:
  """The transitions of the newest whole checkpoint, the oldest first.

  Args:
    source: the folder of a run, or that of its replay's checkpoints; of a replay in
      several shards the one with a folder for each.
    discount: the agent's, per step; for sequences alone.

  Raises:
    UsageError: there is no checkpoint, none is whole, or it holds several tables.
  """
  place = Path(source)
  if (place / IN_RUN).is_dir():
    place /= IN_RUN
  folders = [place] if replay_folders.numbered(place) else sorted(place.glob('[0-9]*'))
  parts = [
    _read(source, found, discount)
    for folder in folders
    if (found := Checkpoints(folder, keep=1).newest()) is not None
  ]
  if not parts:
    raise UsageError(
      f'dataset {source!r}: there is no checkpoint of a replay in it; `callsheet run '
      'AGENT --replay_checkpoint` leaves one in its run folder'
    )
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(source: str, found: Found, discount: float) -> Columns:
  tables = replay_folders.declared(found.manifest['tables'])
  if len(tables) != 1:
    raise UsageError(
      f'dataset {source!r}: expected a replay of one table, came {sorted(tables)}'
    )
  native_memory.check_fits(tuple(tables.values()))
  guarded = {name: GuardedTable(table) for name, table in tables.items()}
  Checkpoints(found.place.parent, keep=1).restore(found, guarded)
  [table] = [each.table for each in guarded.values()]
  steps = table.declared.steps
  if steps is None or not isinstance(steps.writes, Sequences):
    return table.items()
  return _of_sequences(table, discount)


def _of_sequences(table: NativeTable, discount: float) -> Columns:
  """Each step that any sequence shows, once."""
  items = table.items()
  mask = items['mask'].astype(bool)
  # By the row that a step led to: overlapping sequences show it several times.
  _, once = np.unique(table.rows_shown()[:, 1:][mask], return_index=True)
  observation = items['observation']
  return {
    'observation': observation[:, :-1][mask][once],
    'action': items['action'][mask][once],
    'reward': items['reward'][mask][once],
    'discount': (items['discount'][mask][once] * np.float32(discount)),
    'next_observation': observation[:, 1:][mask][once],
  }
