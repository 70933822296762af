"""What the terminal shows of a run while it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from callsheet.calls import call_async
from callsheet.errors import CourierError
from callsheet.launch import Running

Row = Mapping[str, Any]

# Seconds between two looks at the program, and between two lines in a log.
TICK = 0.5
LINE_PERIOD = 5.0

_OF_ACTORS = frozenset(
  {'environment steps', 'samples per insert', 'return, acting', 'age of parameters'}
)


def follow(
  running: Running,
  latest: Callable[[], Row],
  console: Console,
  target_return: float | None = None,
  live: bool = True,
  acts: bool = True,
) -> None:
  """Shows the newest row until the program ends: a live table, or a line now and then.

  Args:
    running: the program.
    latest: gives the newest row, empty before the first.
    console: where to; the nodes' own output goes there too.
    target_return: shown beside the return.
    live: a table where the terminal can redraw it. Not where nodes write to the
      terminal themselves: they would tear it, and it would hide a debugger's prompt.
    acts: whether the run has actors; without, nothing is shown of them.

  Raises:
    NodeFailed: the program failed.
  """
  newest = Newest(latest)
  if live and console.is_terminal and not console.is_dumb_terminal:
    with Live(
      table({}, target_return, acts),
      console=console,
      auto_refresh=False,
      transient=True,
    ) as shown:
      while not running.wait(timeout=TICK):
        shown.update(table(newest.row(), target_return, acts), refresh=True)
    return
  shown_at = time.monotonic()
  while not running.wait(timeout=TICK):
    row = newest.row()
    if row and time.monotonic() - shown_at >= LINE_PERIOD:
      shown_at = time.monotonic()
      console.print(line(row, acts), soft_wrap=True)


class Newest:
  """The newest row that has come so far; never waits, for the program must be followed.

  Args:
    latest: a method of a node, which may be starting, busy or gone.
  """

  def __init__(self, latest: Callable[[], Row]) -> None:
    self._latest = latest
    self._row: Row = {}
    self._asked = call_async(latest)

  def row(self) -> Row:
    """Empty before the first has come."""
    if self._asked.done():
      # What became of a recorder that doesn't answer, the supervisor will say.
      with contextlib.suppress(CourierError):
        self._row = self._asked.result() or self._row
      self._asked = call_async(self._latest)
    return self._row


def table(row: Row, target_return: float | None = None, acts: bool = True) -> Table:
  """The row as a table of a figure a line; its size is the same for all of a run.

  Args:
    row: the newest.
    target_return: shown beside the return.
    acts: whether the run has actors.
  """
  shown = Table(box=box.ROUNDED, show_header=False, border_style='dim')
  shown.add_column(style='bold', width=18, no_wrap=True)
  shown.add_column(justify='right', width=11, no_wrap=True)
  shown.add_column(style='dim', width=26, no_wrap=True)
  target = '' if target_return is None else f', target {target_return:g}'
  for figure in (
    ('time', _clock(row.get('seconds')), '' if row else 'starting ...'),
    (
      'environment steps',
      _count(row.get('actor_steps')),
      _rate(row.get('actor_steps_per_second')),
    ),
    (
      'learner steps',
      _count(row.get('learner_steps')),
      _rate(row.get('learner_steps_per_second')),
    ),
    ('samples per insert', _figure(row.get('samples_per_insert')), _limiter(row)),
    (
      'return, evaluated',
      _figure(row.get('evaluator/return')),
      f'best {_figure(row.get("evaluator/best_return"))}{target}',
    ),
    ('return, acting', _figure(row.get('actor/return')), 'while exploring'),
    ('age of parameters', _age(row), 'in the actors'),
    ('loss', _figure(row.get('learner/loss'), digits=4), ''),
  ):
    if acts or figure[0] not in _OF_ACTORS:
      shown.add_row(*figure)
  return shown


def line(row: Row, acts: bool = True) -> str:
  """The row as one line, without what is of actors where none act."""
  acting = f' (acting {_figure(row.get("actor/return"))})' if acts else ''
  actors = (
    f'env {_count(row.get("actor_steps"))} ({_rate(row.get("actor_steps_per_second"))})'
  )
  parts = [
    f'{row["seconds"]:5.0f} s',
    *([actors] if acts else []),
    f'learner {_count(row.get("learner_steps"))} '
    f'({_rate(row.get("learner_steps_per_second"))})',
    *([f'spi {_figure(row.get("samples_per_insert"))}'] if acts else []),
    f'return {_figure(row.get("evaluator/return"))}{acting}',
    *([f'params {_age(row)} old', _limiter(row)] if acts else []),
  ]
  return ' | '.join(parts)


def _limiter(row: Row) -> str:
  blocked = max(
    row.get('replay_writers_blocked_seconds') or 0.0,
    row.get('replay_samplers_blocked_seconds') or 0.0,
  )
  # A moment is how it is meant to be; longer, and somebody looks for the reason.
  long = f', {blocked:,.0f} s' if blocked >= 1 else ''
  return f'limiter: {row.get("replay_state", "-")}{long}'


def _clock(seconds: float | None) -> str:
  if seconds is None:
    return '-'
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'


def _count(value: float | None) -> str:
  return '-' if value is None else f'{value:,.0f}'


def _rate(value: float | None) -> str:
  return f'{_count(value)}/s'


def _age(row: Row) -> str:
  value = row.get('actor/parameter_age')
  return '-' if value is None else f'{value:,.1f} s'


def _figure(value: float | None, digits: int = 1) -> str:
  return '-' if value is None else f'{value:,.{digits}f}'
