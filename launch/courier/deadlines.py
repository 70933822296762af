"""When a call must be answered: one moment for the whole call, and a switch."""

from __future__ import annotations

import time

_suspended = False


class Expired(Exception):
  """The moment has passed."""


def suspend_deadlines(flag: bool) -> None:
  """No call of this process times out while the flag is set: for debuggers.

  A call whose deadline passed meanwhile fails once the flag is taken back.
  """
  global _suspended
  _suspended = flag


def deadlines_suspended() -> bool:
  """Whether somebody debugs this process."""
  return _suspended


def remaining(end: float | None) -> float | None:
  """Seconds until `end` (monotonic), at least a millisecond; None without limit.

  Raises:
    Expired: it has passed.
  """
  if end is None:
    return None
  left = end - time.monotonic()
  if left > 0:
    return left
  if _suspended:
    return 0.5
  raise Expired
