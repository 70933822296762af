"""What is shown of a run while it goes on."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from callsheet.commands import dashboard
from callsheet.commands.dashboard import Newest, follow, line, table
from callsheet.errors import Unavailable

ROW = {
  'seconds': 3725.4,
  'actor_steps': 17204,
  'actor_steps_per_second': 1234.5,
  'learner_steps': 4056,
  'learner_steps_per_second': 247.2,
  'samples_per_insert': 29.96,
  'replay_state': 'actors wait',
  'actor/return': 124.51,
  'actor/parameter_age': 0.42,
  'evaluator/return': 128.8,
  'evaluator/best_return': 139.65,
  'learner/loss': 2.12654,
}
# As the recorder writes it before anything has happened.
FIRST = {
  'seconds': 1.0,
  'actor_steps_per_second': 0.0,
  'learner_steps_per_second': None,
  'samples_per_insert': None,
  'replay_state': 'filling',
}


def drawn(row, target=None, acts=True) -> list[str]:
  console = Console(file=io.StringIO(), width=100, legacy_windows=False)
  console.print(table(row, target, acts))
  return console.file.getvalue().splitlines()


def test_table():
  assert drawn(ROW, 475) == [
    '╭────────────────────┬─────────────┬────────────────────────────╮',
    '│ time               │     1:02:05 │                            │',
    '│ environment steps  │      17,204 │ 1,234/s                    │',
    '│ learner steps      │       4,056 │ 247/s                      │',
    '│ samples per insert │        30.0 │ limiter: actors wait       │',
    '│ return, evaluated  │       128.8 │ best 139.7, target 475     │',
    '│ return, acting     │       124.5 │ while exploring            │',
    '│ age of parameters  │       0.4 s │ in the actors              │',
    '│ loss               │      2.1265 │                            │',
    '╰────────────────────┴─────────────┴────────────────────────────╯',
  ]


def test_table_before_there_are_figures():
  assert drawn({}) == [
    '╭────────────────────┬─────────────┬────────────────────────────╮',
    '│ time               │           - │ starting ...               │',
    '│ environment steps  │           - │ -/s                        │',
    '│ learner steps      │           - │ -/s                        │',
    '│ samples per insert │           - │ limiter: -                 │',
    '│ return, evaluated  │           - │ best -                     │',
    '│ return, acting     │           - │ while exploring            │',
    '│ age of parameters  │           - │ in the actors              │',
    '│ loss               │           - │                            │',
    '╰────────────────────┴─────────────┴────────────────────────────╯',
  ]


def test_table_keeps_its_size():
  huge = {
    name: 1e9 if isinstance(value, float) else value for name, value in ROW.items()
  }
  shapes = {tuple(map(len, drawn(row, 1e9))) for row in (ROW, FIRST, {}, huge)}
  assert len(shapes) == 1


def test_line():
  assert line(ROW) == (
    ' 3725 s | env 17,204 (1,234/s) | learner 4,056 (247/s) | spi 30.0 | '
    'return 128.8 (acting 124.5) | params 0.4 s old | limiter: actors wait'
  )
  assert line(FIRST) == (
    '    1 s | env - (0/s) | learner - (-/s) | spi - | '
    'return - (acting -) | params - old | limiter: filling'
  )


def test_of_actors_nothing_is_shown_where_there_are_none():
  assert drawn(ROW, 475)[1:3] != drawn(ROW, 475, acts=False)[1:3]
  assert [line.split('│')[1].strip() for line in drawn(ROW, acts=False)[1:-1]] == [
    'time',
    'learner steps',
    'return, evaluated',
    'loss',
  ]
  assert line(ROW, acts=False) == ' 3725 s | learner 4,056 (247/s) | return 128.8'


@pytest.mark.timeout(20)
def test_newest_row_is_never_waited_for():
  comes, asked = threading.Event(), []

  def latest():
    asked.append(None)
    if len(asked) == 1:
      comes.wait()
      return {'seconds': 1.0}
    raise Unavailable('it has gone', 'recorder')

  newest = Newest(latest)
  assert newest.row() == {}
  comes.set()
  while not newest.row():
    pass
  while len(asked) < 4:
    assert newest.row() == {'seconds': 1.0}


def test_newest_row_stays_where_none_comes():
  rows = iter([{'seconds': 1.0}])
  newest = Newest(lambda: next(rows, {}))
  while not newest.row():
    pass
  for _ in range(100):
    assert newest.row() == {'seconds': 1.0}


class Program:
  """Ends after so many looks at it, and prints in between."""

  def __init__(self, looks: int, console: Console) -> None:
    self.looks, self.console = looks, console

  def wait(self, timeout: float) -> bool:
    threading.Event().wait(0.01)
    self.looks -= 1
    if self.looks == 5:
      self.console.print('replay | here')
    return self.looks == 0


def followed(monkeypatch, **kwargs) -> str:
  monkeypatch.setattr(dashboard, 'LINE_PERIOD', 0.03)
  file = io.StringIO()
  terminal = kwargs.pop('terminal', False)
  console = Console(
    file=file, width=80, force_terminal=terminal, color_system=None, _environ={}
  )
  follow(Program(20, console), lambda: ROW, console, **kwargs)
  return file.getvalue()


def test_a_log_gets_lines(monkeypatch):
  shown = followed(monkeypatch)
  assert shown.count(line(ROW) + '\n') >= 2
  assert 'replay | here\n' in shown
  assert '\x1b' not in shown


def test_a_terminal_gets_a_table_that_is_gone_in_the_end(monkeypatch):
  shown = followed(monkeypatch, terminal=True, target_return=475)
  assert shown.index('starting ...') < shown.index('best 139.7, target 475')
  assert line(ROW) not in shown
  last = shown[shown.rindex('╯') :]
  # The cursor goes up over the table's ten lines and erases each.
  assert last.count('\x1b[1A\x1b[2K') == 10


def test_no_table_where_nodes_write_to_the_terminal_themselves(monkeypatch):
  shown = followed(monkeypatch, terminal=True, live=False)
  assert line(ROW) in shown and '╭' not in shown
