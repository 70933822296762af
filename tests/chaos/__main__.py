"""The table: python -m tests.chaos --faults=100 --out=runs/chaos-0.jsonl

A line of JSON is appended for each fault; begun again, it goes on behind the last one.
With --markdown the table is for a page, a line for each kind of fault.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import draw
from tests.chaos.suffering import can_mount, suffer


def main() -> None:
  """Exits with 1 if anything was not as promised."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--faults', type=int, default=100)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--target', type=float, default=475.0)
  parser.add_argument('--out', type=Path, default=Path('runs/chaos-0.jsonl'))
  parser.add_argument('--markdown', action='store_true')
  options = parser.parse_args()
  console = Console(highlight=False)
  options.out.parent.mkdir(parents=True, exist_ok=True)
  options.out.touch()
  done = {row['fault']['number'] for row in _read(options.out)}
  for fault in draw(options.seed, options.faults):
    if fault.number in done:
      continue
    if fault.kind == 'full disk' and not can_mount():
      console.print(f'{fault.number}: a full disk takes root, left out')
      continue
    outcome = suffer(fault, options.target)
    with open(options.out, 'a') as file:
      file.write(outcome.line() + '\n')
    console.print(
      f'{fault.number:4} {fault.kind}, {fault.victim}, after {fault.at:.1f} s: '
      f'{"; ".join(outcome.complaints) or "well"}; return {outcome.value}, '
      f'{outcome.restarts} restarts, {outcome.seconds:.0f} s',
      soft_wrap=True,
    )
  rows = _read(options.out)
  if options.markdown:
    print(markdown(rows))
  else:
    console.print(table(rows))
  raise SystemExit(any(not row['ok'] for row in rows))


def _read(path: Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows: list[dict[str, Any]]) -> Table:
  """A line for each kind of fault and each victim."""
  shown = Table('fault', 'victim', 'runs', 'well', 'restarts', 'least return')
  groups = defaultdict(list)
  for row in rows:
    groups[row['fault']['kind'], row['fault']['victim']].append(row)
  for (kind, victim), group in sorted(groups.items()):
    values = [row['value'] for row in group if row['value'] is not None]
    shown.add_row(
      kind,
      victim,
      str(len(group)),
      str(sum(row['ok'] for row in group)),
      str(sum(row['restarts'] for row in group)),
      f'{min(values):.1f}' if values else '-',
    )
  well = sum(row['ok'] for row in rows)
  shown.add_section()
  shown.add_row('all', '', str(len(rows)), str(well), '', '')
  return shown


def markdown(rows: list[dict[str, Any]]) -> str:
  """A line for each kind of fault; seconds are medians of whole runs."""
  lines = [
    '| fault | of | runs | well | restarts | least return | seconds |',
    '|---|---|---|---|---|---|---|',
  ]
  kinds = sorted({row['fault']['kind'] for row in rows})
  for kind in [*kinds, 'all']:
    group = [row for row in rows if kind in ('all', row['fault']['kind'])]
    victims = len({row['fault']['victim'] for row in group})
    figures = [
      kind,
      f'{victims} victim{"s" * (victims > 1)}',
      len(group),
      sum(row['ok'] for row in group),
      sum(row['restarts'] for row in group),
      f'{min(row["value"] or 0.0 for row in group):.1f}',
      f'{statistics.median(row["seconds"] for row in group):.0f}',
    ]
    lines.append(f'| {" | ".join(map(str, figures))} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
