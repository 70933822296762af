"""What a node writes as it closes: a disk that is full may have room in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 6.0
"""Seconds; a node that takes more than ten to stop is ended."""

_PAUSE = 0.1


def last_write(write: Callable[[], None]) -> None:
  """Writes, and tries again where that can't be done, for as long as there is time.

  Args:
    write: leaves nothing, or nothing that a second go would mind, where it fails.

  Raises:
    OSError: the time is up.
  """
  until = time.monotonic() + PATIENCE
  while True:
    try:
      return write()
    except OSError:
      if time.monotonic() >= until:
        raise
    time.sleep(_PAUSE)
