"""Checkpoints of a Reverb replay: written aside, renamed into place, the newest kept.

`<directory>/replay-000007/` holds Reverb's own files and `replay.json`: the tables as
they were declared (Reverb restores the declaration with the data, silently) and each
table's highest priority. One replay writes to one directory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from callsheet.agents.base import Table
from callsheet.errors import UsageError

_PREFIX = 'replay-'
_ASIDE = '.writing-'
_NOTES = 'replay.json'


def make_aside(directory: Path) -> Path:
  """A fresh folder for Reverb to write to; what a killed process left is removed."""
  directory.mkdir(parents=True, exist_ok=True)
  for left in directory.glob(f'{_ASIDE}*'):
    shutil.rmtree(left, ignore_errors=True)
  return Path(tempfile.mkdtemp(prefix=_ASIDE, dir=directory))


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
  described = {name: _describe(table) for name, table in tables.items()}
  notes = {'tables': described, 'highest_priority': dict(highest)}
  (written / _NOTES).write_text(json.dumps(notes, indent=2))
  present = _all(directory)
  number = int(present[-1].name.removeprefix(_PREFIX)) + 1 if present else 0
  place = directory / f'{_PREFIX}{number:06d}'
  os.rename(written, place)
  for old in present[: max(0, len(present) + 1 - keep)]:
    shutil.rmtree(old, ignore_errors=True)
  return place


def newest(directory: Path) -> Path | None:
  """The latest checkpoint in there, None if there is none yet."""
  present = _all(directory)
  return present[-1] if present else None


def check(checkpoint: Path, tables: Mapping[str, Table]) -> dict[str, float]:
  """Each table's highest priority in the checkpoint.

  Raises:
    UsageError: it was written by tables that were declared otherwise.
  """
  notes = json.loads((checkpoint / _NOTES).read_text())
  there: dict[str, dict[str, Any]] = notes['tables']
  here = {name: _describe(table) for name, table in tables.items()}
  if there.keys() != here.keys():
    raise UsageError(
      f'{checkpoint} holds the tables {sorted(there)}, not {sorted(here)}; '
      f'restore with the tables it was written by, or start without restore'
    )
  for name, fields in here.items():
    for field, value in fields.items():
      if there[name].get(field) != value:
        raise UsageError(
          f'{checkpoint}: table {name!r} was written with {field} = '
          f'{there[name].get(field)}, now it is {value}; restore with the former, '
          f'or start without restore'
        )
  return {name: float(value) for name, value in notes['highest_priority'].items()}


def _all(directory: Path) -> list[Path]:
  found = directory.glob(f'{_PREFIX}[0-9]*')
  return sorted(path for path in found if (path / _NOTES).is_file())


def _describe(table: Table) -> dict[str, Any]:
  fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
  fields['columns'] = {
    name: [np.dtype(spec.dtype).str, list(spec.shape)]
    for name, spec in table.columns.items()
  }
  fields['limiter'] = dataclasses.asdict(table.limiter)
  described: dict[str, Any] = json.loads(json.dumps(fields))
  return described
