"""`callsheet top RUN`: what the nodes of a run do and wait for, anew each second."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

from absl import flags
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from callsheet.commands import help, runs, status_tables
from callsheet.commands.flags import new_flags, one_argument, parse
from callsheet.commands.status import look
from callsheet.errors import UsageError

USAGE = 'callsheet top runs/NAME'
_ABOUT = """

Leave it with q or Ctrl-C; it ends with the run. What it shows is explained by
`callsheet status --help`."""

_PERIOD = 1.0


def top(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  flags.DEFINE_string(
    'runs_directory', 'runs', 'Where the folders of runs are.', flag_values=values
  )
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'showing a run': ('runs_directory',)}) + _ABOUT)
    return 0
  wanted = one_argument(arguments, 'run', USAGE)
  folder = runs.find(wanted, values.runs_directory, USAGE)
  console = Console(highlight=False)
  if not console.is_terminal or console.is_dumb_terminal:
    raise UsageError(
      f'callsheet top needs a terminal; `callsheet status {wanted}` prints it once'
    )
  with contextlib.suppress(KeyboardInterrupt), keys() as pressed:
    follow(folder, console, pressed)
  with contextlib.suppress(UsageError):
    newest, state = look(folder)
    if newest is not None:
      console.print(status_tables.head(newest, state), soft_wrap=True)
  return 0


def follow(folder: str, console: Console, pressed: Callable[[float], str]) -> None:
  """Shows the run until it is over, or `q`.

  Args:
    folder: of the run.
    console: a terminal.
    pressed: waits so many seconds for a key; empty if there was none.
  """
  with Live(console=console, screen=True, auto_refresh=False) as live:
    while True:
      over = runs.is_over(folder)
      live.update(view(folder, console.size.height), refresh=True)
      if over or pressed(_PERIOD) in ('q', 'Q'):
        return


def view(folder: str, height: int) -> RenderableType:
  """What is shown now."""
  try:
    newest, state = look(folder)
  except UsageError as error:
    return Text(str(error))
  if newest is None:
    return Text(f'{folder}: {state} ...')
  foot = Text(f'{folder}   q leaves', 'dim')
  return Group(status_tables.whole(newest, state, height), foot)


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
  """Keys as they are pressed, where standard input is a terminal."""
  if not sys.stdin.isatty():
    yield _no_key
    return
  number = sys.stdin.fileno()
  before = termios.tcgetattr(number)

  def pressed(seconds: float) -> str:
    ready, _, _ = select.select([number], [], [], seconds)
    return os.read(number, 1).decode(errors='replace') if ready else ''

  try:
    tty.setcbreak(number)
    yield pressed
  finally:
    termios.tcsetattr(number, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
  time.sleep(seconds)
  return ''
