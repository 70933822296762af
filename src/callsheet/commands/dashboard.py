"""What the terminal shows of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from callsheet.errors import CourierError
from callsheet.launch import Running

Row = Mapping[str, Any]

# Seconds between two lines where the terminal can't redraw.
LINE_PERIOD = 5.0


def follow(running: Running, latest: Callable[[], Row], console: Console) -> None:
  """Shows the newest row until the program ends: a live table, or lines in a log.

  Args:
    running: the program.
    latest: gives the newest row, empty before the first.
    console: where to; the nodes' own output goes there too.

  Raises:
    NodeFailed: the program failed.
  """
  if console.is_terminal:
    with Live(console=console, auto_refresh=False, transient=True) as live:
      while not running.wait(timeout=0.5):
        live.update(table(_ask(latest)), refresh=True)
    return
  shown_at = time.monotonic()
  while not running.wait(timeout=0.5):
    if time.monotonic() - shown_at >= LINE_PERIOD:
      shown_at = time.monotonic()
      if row := _ask(latest):
        console.print(line(row), soft_wrap=True)


def table(row: Row) -> Table | Group:
  """The row as a table of two columns."""
  if not row:
    return Group(Text('starting ...', style='dim'))
  shown = Table(box=None, show_header=False, pad_edge=False)
  shown.add_column(style='bold')
  shown.add_column(justify='right')
  shown.add_column(style='dim')
  shown.add_row(
    'environment steps',
    _count(row.get('actor_steps', 0)),
    f'{_count(row.get("actor_steps_per_second"))}/s',
  )
  shown.add_row(
    'learner steps',
    _count(row.get('learner_steps', 0)),
    f'{_count(row.get("learner_steps_per_second"))}/s',
  )
  shown.add_row(
    'samples per insert', _figure(row.get('samples_per_insert')), _limiter(row)
  )
  shown.add_row('return, acting', _figure(row.get('actor/return')), 'while exploring')
  shown.add_row(
    'return, evaluated',
    _figure(row.get('evaluator/return')),
    f'best {_figure(row.get("evaluator/best_return"))}',
  )
  shown.add_row(
    'age of parameters', f'{_figure(row.get("actor/parameter_age"))} s', 'in the actors'
  )
  shown.add_row('loss', _figure(row.get('learner/loss'), digits=4), '')
  return shown


def line(row: Row) -> str:
  """The row as one line."""
  return ' | '.join(
    (
      f'{row["seconds"]:5.0f} s',
      f'env {_count(row.get("actor_steps", 0))} '
      f'({_count(row.get("actor_steps_per_second"))}/s)',
      f'learner {_count(row.get("learner_steps", 0))} '
      f'({_count(row.get("learner_steps_per_second"))}/s)',
      f'spi {_figure(row.get("samples_per_insert"))}',
      f'return {_figure(row.get("evaluator/return"))} '
      f'(acting {_figure(row.get("actor/return"))})',
      f'params {_figure(row.get("actor/parameter_age"))} s old',
      _limiter(row),
    )
  )


def _ask(latest: Callable[[], Row]) -> Row:
  """The newest row; none where the recorder is starting or gone, no reason to end."""
  try:
    return latest()
  except CourierError:
    return {}


def _limiter(row: Row) -> str:
  return f'limiter {row.get("replay_state", "starting")}'


def _count(value: float | None) -> str:
  return '-' if value is None else f'{value:,.0f}'


def _figure(value: float | None, digits: int = 1) -> str:
  return '-' if value is None else f'{value:,.{digits}f}'
