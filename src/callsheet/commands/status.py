"""`callsheet status [RUN]`: how runs stand, or the nodes of one."""

from __future__ import annotations

import contextlib
import os

from absl import flags
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from callsheet.commands import help, runs, status_tables
from callsheet.commands.flags import new_flags, parse
from callsheet.errors import UsageError
from callsheet.launch.observe.document import Status

USAGE = 'callsheet status runs/NAME'
_ABOUT = """

Without a run, lists all; of one, shows its nodes (state, restarts, CPU, memory, what
each waits for) and its edges (calls and bytes per second, latency), as they were within
the last second. `callsheet top RUN` shows the same anew each second."""
_SNAPSHOTS = 'snapshots'


def status(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  flags.DEFINE_string(
    'runs_directory', 'runs', 'Where the folders of runs are.', flag_values=values
  )
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'showing runs': ('runs_directory',)}) + _ABOUT)
    return 0
  if len(arguments) > 1:
    raise UsageError(f'expected one run, got {" ".join(arguments)}; right is: {USAGE}')
  console = Console(highlight=False)
  if not arguments:
    show(status_tables.narrowed(overview(values.runs_directory)), console)
    return 0
  folder = runs.find(arguments[0], values.runs_directory, USAGE)
  newest, state = look(folder)
  if newest is None:
    console.print(Text(f'{folder}: {state}; it has told nothing yet'))
  else:
    show(status_tables.whole(newest, state), console)
  return 0


def show(what: RenderableType, console: Console) -> None:
  """Prints it; what goes into a file or a pipe is as wide as it takes."""
  if not console.is_terminal:
    free = console.options.update(width=10_000)
    wide = console.measure(what, options=free).maximum
    console = Console(highlight=False, width=max(console.width, wide))
  console.print(what)


def look(folder: str) -> tuple[Status | None, runs.State]:
  """The newest status of a run, and how it stands."""
  newest = runs.status(folder)
  return newest, runs.state(folder, newest)


def overview(runs_directory: str, now: float | None = None) -> Table:
  """A line a run, those begun last at the end.

  Args:
    runs_directory: where they are.
    now: in seconds since 1970; None for this moment.

  Raises:
    UsageError: there is none.
  """
  names = runs.names(runs_directory)
  if not names:
    raise UsageError(
      f'no runs in {os.path.abspath(runs_directory)}; `callsheet run dqn` makes one, '
      'or name another folder: --runs_directory=DIRECTORY'
    )
  table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style='bold')
  table.add_column('run', overflow='fold', min_width=12)
  for title in ('state', 'nodes'):
    table.add_column(title, no_wrap=True)
  for title in ('time', 'env steps', 'learner steps', 'return'):
    table.add_column(title, justify='right', no_wrap=True)
  for name in names:
    table.add_row(*_line(os.path.join(runs_directory, name), now))
  return table


def _line(folder: str, now: float | None) -> list[str | Text]:
  newest = None
  with contextlib.suppress(UsageError):  # It is of another version, or torn.
    newest = runs.status(folder)
  state, row = runs.state(folder, newest, now), runs.last_row(folder)
  shown = Text(state, status_tables.COLOURS.get(state, ''))
  if state in ('failed', 'interrupted', 'lost') and has_snapshots(folder):
    shown.append(', resumable', 'cyan')
  up = 0
  if newest is not None and state in ('running', 'stopping'):
    up = sum(node.answers for node in newest.nodes)
  return [
    os.path.basename(folder),
    shown,
    f'{up}/{len(newest.nodes)}' if newest else '',
    status_tables.duration(row['seconds']) if 'seconds' in row else '',
    _count(row.get('actor_steps') or None),
    _count(row.get('learner_steps')),
    _figure(row.get('evaluator/return')),
  ]


def has_snapshots(folder: str) -> bool:
  """Whether there is one to resume from: each is a folder with a number."""
  with contextlib.suppress(OSError):
    return any(each.isdigit() for each in os.listdir(os.path.join(folder, _SNAPSHOTS)))
  return False


def _count(value: float | None) -> str:
  return '' if value is None else f'{value:,.0f}'


def _figure(value: float | None) -> str:
  return '' if value is None else f'{value:,.1f}'
