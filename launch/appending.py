"""A file that lines are appended to for as long as a process prints some."""

from __future__ import annotations

import contextlib
from io import FileIO


class Appended:
  """Keeps what can be kept: a disk that is full costs lines, and nothing else.

  Whoever reads a process's output has to go on, or the process stops for ever as soon
  as its pipe is full.

  Args:
    path: the file, opened at the first line.
  """

  def __init__(self, path: str) -> None:
    self._path = path
    self._file: FileIO | None = None

  def write(self, line: bytes) -> None:
    """Appends one line, if that can be done."""
    with contextlib.suppress(OSError):
      if self._file is None:
        self._file = open(self._path, 'ab', buffering=0)  # noqa: SIM115
      self._file.write(line)

  def close(self) -> None:
    """Lets go of the file."""
    if self._file is not None:
      self._file.close()
