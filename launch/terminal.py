"""Lines of many nodes on one terminal: each under its node's name, in its colour."""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Imported by the first who prints, which no node's process does.
  from rich.console import Console
  from rich.text import Text

# Told apart on dark and on light grounds.
_COLOURS = ('cyan', 'magenta', 'green', 'yellow', 'blue', 'bright_red', 'bright_cyan')


def labelled(node: str, line: str) -> Text:
  """The line with the node's name before it, in the node's colour."""
  from rich.text import Text

  colour = _COLOURS[zlib.crc32(node.encode()) % len(_COLOURS)]
  return Text.assemble((f'{node} | ', colour), Text.from_ansi(line))


class Terminal:
  """Prints lines; safe to call from many threads.

  Args:
    console: shared with a live display so that neither overwrites the other; standard
      error by default.
  """

  def __init__(self, console: Console | None = None) -> None:
    if console is None:
      from rich.console import Console

      console = Console(stderr=True, highlight=False)
    self._console = console

  def say(self, node: str, line: str) -> None:
    """Prints `line` with `node` before it."""
    text = labelled(node, line)
    # Where the terminal has gone (rich exits on a broken pipe), the thread that copies
    # a node's output must go on, or the node would wait for its full pipe for ever.
    with contextlib.suppress(OSError, SystemExit):
      self._console.print(text, soft_wrap=True)
