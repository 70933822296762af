"""Where checkpoints of a replay are, whatever the engine: the newest is kept, k deep.

`<directory>/replay-000007/` is a checkpoint; it was written aside and renamed. One
replay writes to one directory.
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
from dm_env import specs

from callsheet.agents.base import Limiter, NStep, Sequences, Steps, Table
from callsheet.agents.step_tables import item_columns
from callsheet.errors import UsageError

_PREFIX = 'replay-'
_ASIDE = '.writing-'

Described = dict[str, dict[str, Any]]


def make_aside(directory: Path) -> Path:
  """A fresh folder to write to; what a killed process left is removed."""
  directory.mkdir(parents=True, exist_ok=True)
  for left in directory.glob(f'{_ASIDE}*'):
    shutil.rmtree(left, ignore_errors=True)
  return Path(tempfile.mkdtemp(prefix=_ASIDE, dir=directory))


def publish(written: Path, directory: Path, keep: int) -> Path:
  """Makes a folder the newest checkpoint; `keep` of them stay, at least 1."""
  present = numbered(directory)
  number = int(present[-1].name.removeprefix(_PREFIX)) + 1 if present else 0
  place = directory / f'{_PREFIX}{number:06d}'
  os.rename(written, place)
  for old in present[: max(0, len(present) + 1 - keep)]:
    shutil.rmtree(old, ignore_errors=True)
  return place


def numbered(directory: Path) -> list[Path]:
  """The checkpoints there, the newest last."""
  return sorted(path for path in directory.glob(f'{_PREFIX}[0-9]*') if path.is_dir())


def describe(tables: Mapping[str, Table]) -> Described:
  """The tables as they were declared, as JSON has it."""
  described: Described = {}
  for name, table in tables.items():
    fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    fields['columns'] = {
      column: [np.dtype(spec.dtype).str, list(spec.shape)]
      for column, spec in table.columns.items()
    }
    fields['limiter'] = dataclasses.asdict(table.limiter)
    fields['steps'] = table.steps and {
      # The rest is in the columns.
      'writes': [type(table.steps.writes).__name__, vars(table.steps.writes)],
      'max_steps': table.steps.max_steps,
    }
    described[name] = json.loads(json.dumps(fields))
  return described


def declared(described: Described) -> dict[str, Table]:
  """The tables that `describe` described; specs are without their bounds and names."""
  return {name: _declared(fields) for name, fields in described.items()}


def _declared(fields: dict[str, Any]) -> Table:
  columns = {
    column: specs.Array(tuple(shape), np.dtype(dtype))
    for column, (dtype, shape) in fields['columns'].items()
  }
  limiter = dict(fields['limiter'])
  if isinstance(limiter['error_buffer'], list):
    limiter['error_buffer'] = tuple(limiter['error_buffer'])
  steps = fields['steps'] and _steps(columns, fields['steps'])
  return Table(
    **{**fields, 'columns': columns, 'limiter': Limiter(**limiter), 'steps': steps}
  )


def _steps(columns: dict[str, specs.Array], described: dict[str, Any]) -> Steps:
  kind, options = described['writes']
  writes = {'NStep': NStep, 'Sequences': Sequences}[kind](**options)
  # Of a sequence's columns each step has one row.
  one = columns
  if isinstance(writes, Sequences):
    one = {name: specs.Array(c.shape[1:], c.dtype) for name, c in columns.items()}
  own = item_columns(Steps(writes, one['observation'], one['action']))
  extras = {name: column for name, column in one.items() if name not in own}
  return Steps(
    writes, one['observation'], one['action'], extras, described['max_steps']
  )


def check_tables(
  checkpoint: Path, there: Described, tables: Mapping[str, Table]
) -> None:
  """A UsageError where a checkpoint's tables were declared otherwise than these."""
  here = describe(tables)
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
