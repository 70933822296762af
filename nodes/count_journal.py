"""What has been counted, in a file that outlasts the process which counts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from callsheet.nodes.last_writes import last_write

Totals = Mapping[str, Mapping[str, int]]

_COMPACT_BYTES = 4 * 2**20
_TRY_AGAIN = 10.0  # seconds after which a file that could not be written may be


class CountJournal:
  """A line for each report: who it is of, and all that one has counted so far.

  A line is in the operating system's hands before anybody is told that it counts, so
  that killing the process loses none; a crash of the machine may lose the last ones.
  Where it can't be written, that is said once, and counting goes on without it.

  Args:
    path: the file; made if it is missing.
  """

  def __init__(self, path: Path) -> None:
    self._path, self._file, self._size = path, -1, 0
    self._try_at = 0.0
    self._said = False

  def read(self) -> dict[str, dict[str, int]]:
    """The totals by source, but for a last line that was cut off."""
    totals: dict[str, dict[str, int]] = {}
    for source, counted in self._lines():
      totals[source] = counted
    return totals

  def append(self, source: str, counted: Mapping[str, int], totals: Totals) -> None:
    """Writes one report down.

    Args:
      source: who counted.
      counted: all that it has.
      totals: of every source, this one included, for a file that has to be begun.
    """
    try:
      if self._file < 0 or self._size > _COMPACT_BYTES:
        if time.monotonic() >= self._try_at:
          self._begin(totals)
        return
      self._write(_line(source, counted))
      self._said = False
    except OSError as error:
      # Half a line may be there: it is begun anew once it can be.
      self.close()
      self._try_at = time.monotonic() + _TRY_AGAIN
      if not self._said:
        self._said = True
        logging.getLogger(__name__).warning(
          'what is counted can not be kept in %s (%s); counting goes on in memory',
          self._path,
          error.strerror or error,
        )

  def finish(self, totals: Totals) -> None:
    """Writes down what could not be, if it can be by now, and lets go of the file."""
    if self._said:
      # It was said already.
      with contextlib.suppress(OSError):
        last_write(lambda: self._begin(totals))
    self.close()

  def close(self) -> None:
    """Lets go of the file."""
    if self._file >= 0:
      os.close(self._file)
      self._file = -1

  def _begin(self, totals: Totals) -> None:
    """All of it in a new file, which then takes the old one's place."""
    self.close()
    self._path.parent.mkdir(parents=True, exist_ok=True)
    aside = self._path.with_suffix('.new')
    self._file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    self._size = 0
    self._write(b''.join(_line(*each) for each in totals.items()))
    os.fsync(self._file)
    os.rename(aside, self._path)

  def _write(self, line: bytes) -> None:
    self._size += len(line)
    while line:
      line = line[os.write(self._file, line) :]

  def _lines(self) -> Iterator[tuple[str, dict[str, int]]]:
    try:
      text = self._path.read_text(errors='replace')
    except OSError:
      return
    for line in text.splitlines():
      with contextlib.suppress(ValueError, TypeError):
        source, counted = json.loads(line)
        yield str(source), {str(name): int(count) for name, count in counted.items()}


def _line(source: str, counted: Mapping[str, int]) -> bytes:
  return (json.dumps([source, dict(counted)]) + '\n').encode()
