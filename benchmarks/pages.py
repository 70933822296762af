"""The page of the benchmarks' figures: what is in `results/`, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]

_HEAD = """# Benchmarks

`python benchmarks/all.py` measures all of it, one benchmark after the other, and makes
this page; `--only replay` one of them. The figures are medians over rounds that are
interleaved between Callsheet and the peer or floor, in one run on one machine. A target
that was not reached says so.
"""


def page(found: Mapping[str, Figures]) -> str:
  """The page, of the benchmarks whose figures there are."""
  sections = [_HEAD]
  for name, section in PAGES.items():
    if name in found:
      figures = found[name]
      sections.append(
        f'## {name}\n\n`python benchmarks/{name}.py`, {figures["machine"]}.\n\n'
        + section(figures)
      )
  return '\n'.join(sections)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
  lines += ['| ' + ' | '.join(_shown(cell) for cell in row) + ' |' for row in rows]
  return '\n'.join(lines) + '\n'


def _shown(cell: object) -> str:
  if cell is None:
    return '-'
  if isinstance(cell, bool):
    return 'yes' if cell else '**no**'
  if isinstance(cell, int):
    return f'{cell:,}'
  if isinstance(cell, float):
    return f'{cell:,.0f}' if abs(cell) >= 1000 else f'{cell:.3g}'
  return str(cell)


def _replay(figures: Figures) -> str:
  rows = [
    (
      name,
      row['native']['items_per_s'],
      row['native']['MB_per_s'],
      row.get('reverb', {}).get('items_per_s'),
      row.get('reverb', {}).get('by'),
      row.get('ratio'),
      row.get('target'),
      row.get('reached'),
    )
    for name, row in figures.items()
    if isinstance(row, Mapping) and 'native' in row
  ]
  head = (
    'row',
    'items/s',
    'MB/s',
    'Reverb items/s',
    'by',
    'ratio',
    'target',
    'reached',
  )
  text = _table(head, rows)
  costs = []
  for title, key, most in (
    (
      'prioritized and update, cost over uniform',
      'prioritized_and_update_over_uniform',
      1,
    ),
    ('a million items, cost over ten thousand', 'million_over_ten_thousand', 1),
    ('frames colocated, share of memory copy', 'frames_colocated_over_memory_copy', 0),
  ):
    target = figures[key]['target']
    for name, value in figures[key].items():
      if name != 'target':
        reached = value <= target if most else value >= target
        costs.append((title, name, value, target, reached))
  copy = figures['memory_copy_MB_per_s']
  return (
    text
    + '\n'
    + _table(('figure', 'row', 'value', 'target', 'reached'), costs)
    + f'\nMemory copy in the same run: {copy:,} MB/s.\n'
  )


def _end_to_end(figures: Figures) -> str:
  graph, floor = figures['graph'], figures['floor']
  names = ('actor_steps_per_s', 'learner_steps_per_s', 'cores_used')
  rows = [(name, graph[name], floor[name]) for name in (*names, 'steps_per_cpu_second')]
  key = 'cpu_seconds_per_1000_steps'
  rows += [(f'CPU s per 1000 steps: {n}', v, None) for n, v in graph[key].items()]
  rows += [(f'CPU s per 1000 steps: {n}', None, v) for n, v in floor[key].items()]
  return (
    f'Environment steps per CPU second, as a share of the floor: '
    f'**{figures["share"]:.2f}**, target {figures["target"]}, reached: '
    f'{_shown(figures["reached"])}. Without the evaluator, which the floor has not: '
    f'{figures["share_without_evaluator"]:.2f}.\n\n'
  ) + _table(('', 'DQN graph', 'floor'), rows)


def _startup(figures: Figures) -> str:
  warm, target = figures['warm_seconds'], figures['target_warm_seconds']
  return _table(
    ('from the command to the first learner step', 'seconds', 'target', 'reached'),
    [
      ('warm compilation cache', warm, target, warm < target),
      ('cold compilation cache', figures['cold_seconds'], None, None),
      ('floor: one bare process, warm', figures['floor_seconds'], None, None),
    ],
  )


def _checkpoint(figures: Figures) -> str:
  rows = [
    (
      kind,
      figures[kind]['seconds'],
      figures[kind]['MB'],
      figures[kind]['over_copy_of_all'],
    )
    for kind in ('full', 'incremental')
  ]
  calls = [
    (who, when, ms['p50'], ms['p99'], ms['max'])
    for who, by in figures['calls_ms'].items()
    for when, ms in by.items()
  ]
  return (
    _table(('checkpoint', 'seconds', 'MB written', 'over a plain copy of all'), rows)
    + '\n'
    + _table(('calls of a', 'meanwhile', 'p50 ms', 'p99 ms', 'max ms'), calls)
  )


_COMPARED = (
  'fastest_peer',
  'times_as_fast_to_target',
  'beats',
  'fastest_gymnasium_peer',
  'callsheet_steps_ratio',
)


def _race(figures: Figures) -> str:
  rows = [
    (
      name,
      row['seconds'],
      row['min'],
      row['max'],
      row['reached'],
      row['steps_per_s'],
      row['config'],
    )
    for name, row in figures['entrants'].items()
  ]
  head = ('entrant', 'seconds', 'min', 'max', 'reached', 'steps/s', 'configuration')
  lines = [f'{figures["target"]}, seeds {figures["seeds"]}.\n', _table(head, rows)]
  lines += [f'- {name}: {figures[name]}' for name in _COMPARED if name in figures]
  lines += [
    f'- {name} did not take part: {why}' for name, why in figures['absent'].items()
  ]
  return '\n'.join(lines) + '\n'


def _scale(figures: Figures) -> str:
  rows = [
    (int(actors), service, *(row[name] for name in _SERVED))
    for actors, level in figures['levels'].items()
    for service, row in level.items()
  ]
  saturated = ', '.join(
    f'{service} at {count if count else "none of these"}'
    for service, count in figures['saturated_at'].items()
  )
  return (
    f'Parameters of {figures["parameter_bytes"]:,} bytes, blocks of '
    f'{figures["rows_per_block"]} transitions, {figures["relays"]} relays. Fewer than '
    f'nine tenths of the calls that were due were done from so many actors on: '
    f'{saturated}.\n\n'
  ) + _table(('actors', 'call', *_SERVED), rows)


_SERVED = ('calls_per_s', 'share_of_due', 'MB_per_s', 'p50_ms', 'p99_ms')


PAGES: dict[str, Callable[[Figures], str]] = {
  'replay': _replay,
  'end_to_end': _end_to_end,
  'startup': _startup,
  'checkpoint': _checkpoint,
  'race': _race,
  'scale': _scale,
}
