"""`callsheet logs RUN [NODE] [-f]`: what the nodes of a run have printed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from absl import flags
from rich.console import Console

from callsheet.commands import help, log_files, runs
from callsheet.commands.flags import new_flags, parse
from callsheet.commands.log_files import LogFile, Tail
from callsheet.errors import UsageError
from callsheet.launch.terminal import labelled

USAGE = 'callsheet logs runs/NAME learner -f'
_ABOUT = """

Prints a node's log, or those of all nodes with their names before each line; `actor` is
all actors. With -f it goes on with what is new until the run is over, or Ctrl-C."""
_OWN = ('follow', 'lines', 'runs_directory')

# Seconds between two looks at the files, and at how the run stands.
_TICK, _LOOK = 0.2, 1.0
# Lines of each log that following begins with.
_LAST = 10


def logs(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  flags.DEFINE_bool(
    'follow', False, 'Go on with what is new.', short_name='f', flag_values=values
  )
  flags.DEFINE_integer(
    'lines',
    None,
    f'Of each log, the last so many; all by default, {_LAST} with -f.',
    0,
    short_name='n',
    flag_values=values,
  )
  flags.DEFINE_string(
    'runs_directory', 'runs', 'Where the folders of runs are.', flag_values=values
  )
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'showing logs': _OWN}) + _ABOUT)
    return 0
  if not 1 <= len(arguments) <= 2:
    came = ' '.join(arguments) or 'nothing'
    raise UsageError(f'expected a run, and maybe a node, got {came}; right is: {USAGE}')
  folder = runs.find(arguments[0], values.runs_directory, USAGE)
  node = arguments[1] if len(arguments) > 1 else None
  last = values.lines
  if last is None and values.follow:
    last = _LAST
  chosen = Chosen(folder, node)
  with contextlib.suppress(KeyboardInterrupt):
    follow(chosen, last, _over(folder, values.follow))
  return 0


class Chosen:
  """The logs that were asked for; with time there may be more of them.

  Args:
    folder: of the run.
    node: whose; None for all.

  Raises:
    UsageError: the node has no log, and the run is over.
  """

  def __init__(self, folder: str, node: str | None) -> None:
    self._folder, self._node = folder, node
    if not self.files() and (node is not None or runs.is_over(folder)):
      status = runs.status(folder)
      found = log_files.files(folder, log_files.names_of(status))
      known = status is not None and any(each.name == node for each in status.nodes)
      if not known or runs.is_over(folder):
        raise log_files.refuse(found, node or 'any node', USAGE)

  def several(self) -> bool:
    """Whether it has to be said whose each line is."""
    return self._node is None or len(self.files()) > 1

  def files(self) -> list[LogFile]:
    """Those that there are by now."""
    try:
      status = runs.status(self._folder)
    except UsageError:
      status = None
    found = log_files.files(self._folder, log_files.names_of(status))
    if self._node is None:
      return found
    return log_files.of_node(found, self._node, status)


def follow(
  chosen: Chosen,
  last: int | None,
  over: Callable[[], bool],
  tick: float = _TICK,
) -> None:
  """Prints what is there, and what is new until it is over.

  Args:
    chosen: whose logs.
    last: lines to begin with; None for all.
    over: whether nothing will come any more.
    tick: seconds between two looks.
  """
  console = Console(highlight=False)
  tails: dict[str, Tail] = {}
  begin = last
  names: dict[str, str] = {}
  labels = chosen.several()
  try:
    while True:
      # Before the files are read: what was printed until then is.
      ended = over()
      for file in chosen.files():
        names[file.path] = file.name
        if file.path not in tails:
          tails[file.path] = Tail(file.path, begin)
      begin = None  # What comes up later is shown from its beginning.
      for path, tail in tails.items():
        _print(console, names[path], tail.read(), labels)
        if ended:
          _print(console, names[path], tail.half(), labels)
      sys.stdout.flush()
      if ended:
        return
      time.sleep(tick)
  finally:
    for tail in tails.values():
      tail.close()


def _over(folder: str, following: bool) -> Callable[[], bool]:
  """Whether the run is over, looked at now and then."""
  looked, ended = 0.0, not following

  def over() -> bool:
    nonlocal looked, ended
    if not ended and time.monotonic() - looked >= _LOOK:
      looked = time.monotonic()
      ended = not os.path.isdir(folder) or runs.is_over(folder)
    return ended

  return over


def _print(console: Console, node: str, lines: Sequence[str], labels: bool) -> None:
  for line in lines:
    if labels:
      console.print(labelled(node, line), soft_wrap=True)
    else:
      print(line)
