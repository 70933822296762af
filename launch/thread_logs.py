"""Files for what the threads of nodes print, which goes to the terminal as well."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any, TextIO

from callsheet.errors import UsageError
from callsheet.programs.plan import Plan


class ThreadLogs:
  """While it is open, standard output and error know whose thread they are in.

  A node's thread has its name. What other threads print, which a node or a library has
  started, goes to the program's own file, but for the launcher's.

  Args:
    directory: gets a file for each unit; made if it is missing.
    plan: whose nodes.

  Raises:
    UsageError: the folder can't be made.
  """

  def __init__(self, directory: str, plan: Plan) -> None:
    try:
      os.makedirs(directory, exist_ok=True)
    except OSError as error:
      raise UsageError(
        f'the log folder {directory!r} can not be made ({error.strerror}); name one '
        'that can be written: Threads(log_directory=...)'
      ) from None
    self._directory, self._program = directory, plan.name
    self._units = {node.name: node.unit for node in plan.nodes}
    self._launcher = threading.get_ident()
    self._lock = threading.Lock()
    self._files: dict[str, TextIO] = {}
    self._before = sys.stdout, sys.stderr
    self._mine = Copied(sys.stdout, self), Copied(sys.stderr, self)
    sys.stdout, sys.stderr = self._mine

  def path(self, unit: str) -> str:
    """The unit's file."""
    return os.path.join(self._directory, f'{unit.replace("/", "-")}.log')

  def note(self, unit: str, text: str) -> None:
    """Writes what the unit does not say itself."""
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    self._write(unit, f'[callsheet {now}] {text.rstrip()}\n')

  def take(self, text: str) -> None:
    """Takes in what the calling thread prints."""
    if threading.get_ident() != self._launcher:
      thread = threading.current_thread().name
      self._write(self._units.get(thread, self._program), text)

  def close(self) -> None:
    """Gives the streams back, unless somebody else has taken them since."""
    if sys.stdout is self._mine[0]:
      sys.stdout = self._before[0]
    if sys.stderr is self._mine[1]:
      sys.stderr = self._before[1]
    with self._lock:
      for file in self._files.values():
        with contextlib.suppress(OSError):
          file.close()
      self._files.clear()
      self._launcher = -1

  def _write(self, unit: str, text: str) -> None:
    # A full disk must not end a node that prints.
    with self._lock, contextlib.suppress(OSError):
      if self._launcher < 0:
        return
      if unit not in self._files:
        self._files[unit] = open(self.path(unit), 'a', errors='replace')  # noqa: SIM115
      self._files[unit].write(text)
      self._files[unit].flush()


class Copied:
  """A stream that is as it was, and whose text is copied."""

  def __init__(self, stream: TextIO, logs: ThreadLogs) -> None:
    self._stream, self._logs = stream, logs

  def write(self, text: str) -> int:
    """Writes to both."""
    written = self._stream.write(text)
    self._logs.take(text)
    return written

  def writelines(self, lines: Any) -> None:
    """Likewise."""
    for line in lines:
      self.write(line)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
