"""How long a caller of a table waits, who waits now, and what is said in the end."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

from callsheet.agents.base import Table
from callsheet.errors import ReplayTimeout
from callsheet.nodes.limiting import Standing, bounds, credit, owed, room

Side = Literal['sample', 'insert']


class Patience:
  """The time that one call may wait in all.

  Args:
    timeout: seconds from now on; None waits as long as it takes.

  Raises:
    ValueError: it is no number of at least 0.
  """

  def __init__(self, timeout: float | None = None) -> None:
    if timeout is not None and not timeout >= 0:
      raise ValueError(
        f'timeout expected seconds of at least 0, or None to wait as long as it takes, '
        f'came {timeout}'
      )
    self.timeout = timeout
    self._until = None if timeout is None else time.monotonic() + timeout

  def left(self) -> float | None:
    """Seconds, at least 0; None without an end, as `Condition.wait` takes it."""
    if self._until is None or self._until == math.inf:
      return None
    return min(max(0.0, self._until - time.monotonic()), _LONGEST)

  def spent(self) -> bool:
    """Whether the time is up."""
    return self.left() == 0


# Seconds; threading takes no more on some platforms.
_LONGEST = 1e6


class Waiting(NamedTuple):
  """Who waits.

  Attributes:
    callers: how many.
    seconds: how long the one that came first has waited; 0 if there is none.
  """

  callers: int
  seconds: float


class WaitingRoom:
  """Who waits at one side of a table; costs nothing to those who don't."""

  def __init__(self) -> None:
    self._since: dict[int, float] = {}
    self._numbers = itertools.count()

  @contextlib.contextmanager
  def seat(self) -> Iterator[None]:
    """Held while one waits."""
    number = next(self._numbers)
    self._since[number] = time.monotonic()
    try:
      yield
    finally:
      del self._since[number]

  def now(self) -> Waiting:
    """Those who wait at this moment."""
    since = list(self._since.values())
    first = min(since, default=math.inf)
    return Waiting(len(since), max(0.0, time.monotonic() - first) if since else 0.0)


def too_late(
  side: Side, table: Table, at: Standing, patience: Patience, done: int, count: int
) -> ReplayTimeout:
  """What a caller gets whose time is up.

  Args:
    side: what it wanted to do.
    table: where.
    at: how the table stands.
    patience: that of the caller.
    done: items that it has stored or drawn.
    count: items that it wanted to.
  """
  why = _why_no_sample(table, at) if side == 'sample' else _why_no_insert(table, at)
  far = f' ({done} of {count} were {"drawn" if side == "sample" else "stored"})'
  return ReplayTimeout(
    f'table {table.name!r}: no {side} within {patience.timeout:g} s'
    f'{far if count > 1 else ""}: {why}',
    done,
  )


def _why_no_sample(table: Table, at: Standing) -> str:
  limiter = table.limiter
  if at.size < limiter.min_size:
    return (
      f'{at.size} of min_size {limiter.min_size} items are there; is an actor writing?'
    )
  if credit(limiter, at) < 1:
    return (
      f'{limiter.samples_per_insert:g} samples per insert * {at.inserted} inserted - '
      f'{at.sampled} sampled = {owed(limiter, at):g}, and one more sample needs at '
      f'least {bounds(limiter).lowest + 1:g}; is an actor writing?'
    )
  return 'others draw from it; it has credit again by now'


def _why_no_insert(table: Table, at: Standing) -> str:
  limiter = table.limiter
  if room(limiter, at) < 1:
    ratio = limiter.samples_per_insert or 0.0
    return (
      f'{ratio:g} samples per insert * {at.inserted} inserted - {at.sampled} sampled = '
      f'{owed(limiter, at):g}, and one more insert needs at most '
      f'{bounds(limiter).highest - ratio:g}; is a learner sampling?'
    )
  return 'others write to it; it has room again by now'
