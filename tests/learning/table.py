"""Makes agents/README.md of the records of learning runs: make zoo"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from tests.learning.records import Record, read
from tests.learning.rows import BACKENDS, ROWS, Row

AGENTS = Path(__file__).parents[2] / 'agents'
CURVES = 'curves.png'

_HEAD = f"""# What the agents are shown to learn

Made by `make zoo` of the records that `make learn` keeps of its runs, in
`tests/learning/records`; no number here was typed in. Each run trains until the policy,
greedy unless a flag says otherwise, reaches the target over a batch of episodes and
again over as many fresh ones, or until its budget is spent, or it is stopped. Steps are
those of all environments together, an action that is repeated (`action_repeat`) is one;
seconds are of the whole run, start-up and compilation included, on a small machine with
other work beside. Figures of several seeds are the median and, in brackets, the
extremes; of the final return, the mean.

![learning curves]({CURVES})

| agent | environment | target | backend | reached | environment steps | seconds | \
final return |
|---|---|---|---|---|---|---|---|
"""


def line(row: Row, records: Sequence[Record]) -> str:
  """The table's line for the runs of one row in one backend."""
  unit = ' updates' if records[0].unit == 'learner_steps' else ''
  finals = [record.final for record in records]
  cells = [
    ' '.join(filter(None, [f'`{row.agent}`', row.variant])),
    row.environment,
    f'{records[0].target:g} ({row.source})',
    records[0].backend,
    f'{sum(record.reached for record in records)} of {len(records)}',
    f'{_spread([record.steps for record in records])}{unit}',
    _spread([record.seconds for record in records]),
    f'{mean(finals):.1f} ({min(finals):.1f} to {max(finals):.1f})',
  ]
  return f'| {" | ".join(cells)} |'


def _spread(values: Sequence[float]) -> str:
  if len(values) == 1:
    return f'{values[0]:,.0f}'
  return f'{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})'


def draw(groups: Sequence[tuple[Row, Sequence[Record]]], file: Path) -> None:
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
  for each, (row, records) in zip(axes.flat, groups, strict=False):
    for record in records:
      style = '-' if record.backend == BACKENDS[0] else ':'
      each.plot(*zip(*record.curve, strict=True), style, linewidth=1)
    each.axhline(row.target, color='black', linewidth=0.5)
    each.set_title(
      ' '.join(filter(None, [row.agent, row.variant, row.environment])), fontsize=8
    )
    each.tick_params(labelsize=6)
    each.ticklabel_format(axis='x', scilimits=(0, 3))
    each.xaxis.get_offset_text().set_fontsize(6)
  figure.savefig(file, dpi=80)
  pyplot.close(figure)


def main() -> None:
  """Writes the table and the curves."""
  groups = [(row, records) for row in ROWS if (records := read(row.name))]
  if not groups:
    sys.exit('no run of any row is on record: make learn comes first')
  lines = [
    line(row, ran)
    for row, records in groups
    for backend in BACKENDS
    if (ran := [record for record in records if record.backend == backend])
  ]
  commands = '\n'.join(records[-1].command for _, records in groups)
  machines = {record.machine for _, records in groups for record in records}
  (AGENTS / 'README.md').write_text(
    f'{_HEAD}{chr(10).join(lines)}\n\n'
    f'The commands, to which `--seed` and `--backend` were added (on '
    f'{"; ".join(sorted(machines))}):\n\n'
    f'```\n{commands}\n```\n'
  )
  draw(groups, AGENTS / CURVES)


if __name__ == '__main__':
  main()
