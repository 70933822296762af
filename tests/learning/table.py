"""Makes agents/README.md of run folders: python -m tests.learning.table RUNS"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from tests.learning.rows import BACKENDS, ROWS, SEEDS, Row

AGENTS = Path(__file__).parents[2] / 'agents'
CURVES = 'curves.png'

_HEAD = f"""# What the agents are shown to learn

Made by `make zoo` of the folders of runs that `make learn` has left; no number here was
typed in. Each run trains until the greedy policy reaches the target over a batch of
episodes and again over as many fresh ones, or until its budget is spent. Steps are
those of all environments together; seconds are of the whole run, start-up and
compilation included, on a machine with {os.cpu_count()} cores, while other work went
on beside. Figures of several seeds are the median and, in brackets, the extremes; of
the final return, the mean.

![learning curves]({CURVES})

| agent | environment | target | backend | reached | environment steps | seconds | \
final return |
|---|---|---|---|---|---|---|---|
"""


class Run(NamedTuple):
  """One run.

  Attributes:
    row: what it is a run of.
    backend: where it ran.
    seed: of the run.
    rows: its metrics, oldest first.
  """

  row: Row
  backend: str
  seed: int
  rows: list[dict[str, Any]]

  @property
  def final(self) -> float:
    """The newest evaluation's mean return."""
    return float(self.rows[-1]['evaluator/return'])

  @property
  def reached(self) -> bool:
    """Whether that is the target."""
    return self.final >= self.row.target

  @property
  def steps(self) -> str:
    """What its steps are called: an offline run has none of an actor's."""
    return 'actor_steps' if self.rows[-1].get('actor_steps') else 'learner_steps'

  def curve(self) -> dict[float, float]:
    """The mean return by the steps before."""
    axis = 'evaluator/actor_steps'
    if self.steps == 'learner_steps':
      axis = 'learner_steps'
    return {
      row[axis]: row['evaluator/return']
      for row in self.rows
      if row.get('evaluator/return') is not None
    }


def read(folder: Path, row: Row, backend: str) -> list[Run]:
  """The runs of all seeds that have evaluated at least once."""
  runs = []
  for seed in SEEDS:
    file = folder / row.folder(backend, seed) / 'metrics.jsonl'
    if file.exists():
      rows = [json.loads(line) for line in file.read_text().splitlines()]
      if rows and rows[-1].get('evaluator/return') is not None:
        runs.append(Run(row, backend, seed, rows))
  return runs


def line(runs: Sequence[Run]) -> str:
  """The table's line for the runs of one row in one backend."""
  first = runs[0]
  steps = _spread([run.rows[-1][first.steps] for run in runs])
  unit = ' updates' if first.steps == 'learner_steps' else ''
  finals = [run.final for run in runs]
  cells = [
    f'`{first.row.agent}`',
    first.row.environment,
    f'{first.row.target:g} ({first.row.source})',
    first.backend,
    f'{sum(run.reached for run in runs)} of {len(runs)}',
    f'{steps}{unit}',
    _spread([run.rows[-1]['seconds'] for run in runs]),
    f'{mean(finals):.1f} ({min(finals):.1f} to {max(finals):.1f})',
  ]
  return f'| {" | ".join(cells)} |'


def _spread(values: Sequence[float]) -> str:
  if len(values) == 1:
    return f'{values[0]:,.0f}'
  return f'{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})'


def draw(groups: Sequence[Sequence[Run]], file: Path) -> None:
  """A small picture for each row, a curve for each run."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  columns = 4
  lines = -(-len(groups) // columns)
  figure, axes = pyplot.subplots(
    lines, columns, figsize=(12, 2.4 * lines), layout='constrained', squeeze=False
  )
  for each in axes.flat[len(groups) :]:
    each.set_axis_off()
  for each, runs in zip(axes.flat, groups, strict=False):
    for run in runs:
      curve = run.curve()
      style = '-' if run.backend == BACKENDS[0] else ':'
      each.plot(list(curve), list(curve.values()), style, linewidth=1)
    row = runs[0].row
    each.axhline(row.target, color='black', linewidth=0.5)
    each.set_title(f'{row.agent}, {row.environment}', fontsize=8)
    each.tick_params(labelsize=6)
    each.ticklabel_format(axis='x', scilimits=(0, 3))
    each.xaxis.get_offset_text().set_fontsize(6)
  figure.savefig(file, dpi=80)
  pyplot.close(figure)


def main() -> None:
  """Writes the table and the curves."""
  folder = Path(sys.argv[1])
  lines, groups = [], []
  for row in ROWS:
    by_backend = [runs for backend in BACKENDS if (runs := read(folder, row, backend))]
    lines += [line(runs) for runs in by_backend]
    if by_backend:
      groups.append([run for runs in by_backend for run in runs])
  if not groups:
    sys.exit(f'{folder} has no run of any row: make learn comes first')
  commands = '\n'.join(runs[0].row.command() for runs in groups)
  versions = f'Python {platform.python_version()}'
  (AGENTS / 'README.md').write_text(
    f'{_HEAD}{chr(10).join(lines)}\n\n'
    f'The commands, to which `--seed` and `--backend` were added (on {versions}):\n\n'
    f'```\n{commands}\n```\n'
  )
  draw(groups, AGENTS / CURVES)


if __name__ == '__main__':
  main()
