"""What is kept of each learning run: one line in `records/`, so that it outlives it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.learning.rows import Row

RECORDS = Path(__file__).parent / 'records'

# A curve has no more points: what a small picture shows.
_POINTS = 60


@dataclass(frozen=True)
class Record:
  """One run of a row, as its folder told it.

  Attributes:
    name: of the row.
    backend: where it ran.
    seed: of the run.
    target: that the run was to reach.
    command: what a reader would type, without seed and backend.
    unit: what its steps are, 'actor_steps' or, offline, 'learner_steps'.
    steps: in the end.
    seconds: of the whole run.
    final: the newest evaluation's mean return.
    curve: the mean return by the steps before, thinned.
    machine: cores, Python and JAX.
  """

  name: str
  backend: str
  seed: int
  target: float
  command: str
  unit: str
  steps: int
  seconds: float
  final: float
  curve: tuple[tuple[float, float], ...]
  machine: str

  @property
  def reached(self) -> bool:
    """Whether the run ended at its target."""
    return self.final >= self.target

  @classmethod
  def of(cls, folder: Path, row: Row, backend: str, seed: int) -> Record:
    """Reads a finished run's folder."""
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    last = rows[-1]
    unit = 'actor_steps' if last.get('actor_steps') else 'learner_steps'
    axis = 'evaluator/actor_steps' if unit == 'actor_steps' else unit
    curve = {
      float(row[axis]): float(row['evaluator/return'])
      for row in rows
      if row.get('evaluator/return') is not None
    }
    return cls(
      name=row.name,
      backend=backend,
      seed=seed,
      target=row.target,
      command=row.command(),
      unit=unit,
      steps=int(last[unit]),
      seconds=round(float(last['seconds']), 1),
      final=round(float(last['evaluator/return']), 3),
      curve=_thinned(list(curve.items())),
      machine=(
        f'{os.cpu_count()} cores, Python {platform.python_version()}, '
        f'JAX {metadata.version("jax")}'
      ),
    )


def keep(record: Record, folder: Path = RECORDS) -> None:
  """Puts a record among those of its row, in the place of an older one of its seed."""
  folder.mkdir(exist_ok=True)
  others = [
    other
    for other in read(record.name, folder)
    if (other.backend, other.seed) != (record.backend, record.seed)
  ]
  kept = sorted([*others, record], key=lambda each: (each.backend, each.seed))
  lines = [json.dumps(asdict(each)) + '\n' for each in kept]
  file = folder / f'{record.name}.jsonl'
  aside = file.with_suffix('.new')
  aside.write_text(''.join(lines))
  aside.replace(file)


def read(name: str, folder: Path = RECORDS) -> list[Record]:
  """The records of a row, by backend and seed."""
  file = folder / f'{name}.jsonl'
  if not file.exists():
    return []
  made = [json.loads(line) for line in file.read_text().splitlines()]
  return [
    Record(**{**each, 'curve': tuple((x, y) for x, y in each['curve'])})
    for each in made
  ]


def _thinned(
  points: list[tuple[float, float]],
) -> tuple[tuple[float, float], ...]:
  """At most so many, evenly chosen, the last among them."""
  step = -(-len(points) // _POINTS) or 1
  return tuple((x, round(y, 2)) for x, y in points[::-1][::step][::-1])
