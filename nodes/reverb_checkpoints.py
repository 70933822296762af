"""Checkpoints of a Reverb replay: Reverb's own files, and notes beside them.

The notes, `replay.json`, are the tables as they were declared (Reverb restores the
declaration with the data, silently) and each table's highest priority.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from callsheet.agents.base import Table
from callsheet.nodes import replay_folders

_NOTES = 'replay.json'


def publish(
  written: Path,
  directory: Path,
  tables: Mapping[str, Table],
  highest: Mapping[str, float],
  keep: int,
) -> Path:
  """Makes what Reverb wrote the newest checkpoint; drops the oldest beyond `keep`.

  Args:
    written: Reverb's folder, below `directory`.
    directory: where checkpoints are.
    tables: as they were declared.
    highest: each table's highest priority.
    keep: checkpoints that stay, at least 1.
  """
  described = replay_folders.describe(tables)
  notes = {'tables': described, 'highest_priority': dict(highest)}
  (written / _NOTES).write_text(json.dumps(notes, indent=2))
  return replay_folders.publish(written, directory, keep)


def newest(directory: Path) -> Path | None:
  """The latest checkpoint in there, None if there is none yet."""
  present = replay_folders.numbered(directory)
  whole = [path for path in present if (path / _NOTES).is_file()]
  return whole[-1] if whole else None


def check(checkpoint: Path, tables: Mapping[str, Table]) -> dict[str, float]:
  """Each table's highest priority in the checkpoint.

  Raises:
    UsageError: it was written by tables that were declared otherwise.
  """
  notes = json.loads((checkpoint / _NOTES).read_text())
  replay_folders.check_tables(checkpoint, notes['tables'], tables)
  return {name: float(value) for name, value in notes['highest_priority'].items()}
