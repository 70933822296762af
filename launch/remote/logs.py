"""A file for each unit's output, and its lines on the terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable

from callsheet.errors import UsageError
from callsheet.launch.appending import Appended


class Logs:
  """The logs of one running program.

  Args:
    directory: where they go; None for a temporary folder that is kept only if the
      program fails.
    name: the program's.
    say: prints a line under a node's name.
    echo: whether output goes to the terminal, too.

  Raises:
    UsageError: the folder can't be made.
  """

  def __init__(
    self,
    directory: str | None,
    name: str,
    say: Callable[[str, str], None],
    echo: bool = True,
  ) -> None:
    self._say, self._echo, self._keep = say, echo, directory is not None
    self._last: dict[str, str] = {}
    self._folder = directory or tempfile.mkdtemp(prefix=f'{name}-')
    try:
      os.makedirs(self._folder, exist_ok=True)
    except OSError as error:
      raise UsageError(
        f'the log folder {directory!r} can not be made ({error.strerror}); name one '
        'that can be written by log_directory=...'
      ) from None

  def path(self, unit: str) -> str:
    """The unit's file."""
    return os.path.join(self._folder, f'{unit.replace("/", "-")}.log')

  def note(self, unit: str, text: str) -> None:
    """Writes to the unit's log what its process does not say itself."""
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    # A full disk must not keep an event from the supervisor.
    with contextlib.suppress(OSError), open(self.path(unit), 'a') as log:
      log.write(f'[callsheet {now}] {text.rstrip()}\n')

  def copy(self, unit: str, output: Iterable[bytes]) -> None:
    """Copies the lines that a process prints, until it ends."""
    with contextlib.closing(Appended(self.path(unit))) as log:
      for line in output:
        self.take(unit, line, log)

  def take(self, unit: str, line: bytes, log: Appended | None = None) -> None:
    """Takes in one line that a unit printed; `log` is its file if that is open."""
    if log is None:
      with contextlib.closing(Appended(self.path(unit))) as log:
        log.write(line)
    else:
      log.write(line)
    text = line.decode(errors='replace').rstrip('\n')
    if text.strip():
      self._last[unit] = text
    if self._echo:
      self._say(unit, text)

  def last_line(self, unit: str) -> str:
    """What the unit's process printed last."""
    return self._last.get(unit, '')

  def close(self, failed: bool) -> None:
    """Removes a temporary folder, unless the program failed."""
    if not self._keep and not failed:
      shutil.rmtree(self._folder, ignore_errors=True)
