"""How a table of a replay stands, and how fast it is written and drawn from."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from callsheet.agents.base import Table
from callsheet.nodes.limiting import LimiterState, Standing, passing_samples, state
from callsheet.nodes.patience import Waiting

# Seconds that rates look back on, and that are at least between two looks.
_WINDOW = 10.0
_STEP = 0.5


class Ages(NamedTuple):
  """Of the items that were drawn of late, in items that were stored behind them."""

  mean: float
  highest: float


UNKNOWN_AGES = Ages(math.nan, math.nan)


@dataclass(frozen=True)
class TableStatistics:
  """How a table stands. Two are equal where what is in it and its limiter are.

  Attributes:
    size: items stored.
    max_size: items that fit.
    inserted: items written, those before a restored checkpoint included.
    sampled: items drawn, likewise.
    samples_per_insert: `sampled / inserted`; nan before the first insert.
    credit: samples that may still be drawn before the limiter holds the learner; inf
      where nothing bounds them.
    state: who waits, if anybody comes.
    mass: the sum of what the sampler draws in proportion to: p^exponent where it is
      prioritized, 1 of each item otherwise. Of Reverb's prioritized sampler it is that
      at the last draw, nan before the first.
    bytes: memory that the table takes. The native engine takes it whole at once; of
      Reverb it is that of the items stored, before their compression.
    inserts_per_second: over the last ten seconds, or since the last look at the
      statistics if that is longer ago; nan right at the start.
    samples_per_second: likewise.
    waiting_writers: callers that the limiter holds, or those before them.
    writers_blocked_seconds: how long the first of them has waited; 0 if there is none.
    waiting_samplers: like `waiting_writers`.
    samplers_blocked_seconds: like `writers_blocked_seconds`.
    sample_age: of the items drawn in the last calls, how many were stored behind them,
      on average. nan before the first draw, and always of Reverb, which doesn't tell.
    oldest_sample_age: the highest of these.
  """

  size: int
  max_size: int
  inserted: int
  sampled: int
  samples_per_insert: float
  credit: float
  state: LimiterState
  mass: float = field(default=math.nan, compare=False)
  bytes: int = field(default=0, compare=False)
  inserts_per_second: float = field(default=math.nan, compare=False)
  samples_per_second: float = field(default=math.nan, compare=False)
  waiting_writers: int = field(default=0, compare=False)
  writers_blocked_seconds: float = field(default=0.0, compare=False)
  waiting_samplers: int = field(default=0, compare=False)
  samplers_blocked_seconds: float = field(default=0.0, compare=False)
  sample_age: float = field(default=math.nan, compare=False)
  oldest_sample_age: float = field(default=math.nan, compare=False)


class Pace:
  """Items per second, told from looks at the counters: nothing is done in between.

  Args:
    start: where the table stands at first.
  """

  def __init__(self, start: Standing) -> None:
    self._looks = deque([(time.monotonic(), start)])
    self._lock = threading.Lock()

  def look(self, at: Standing) -> tuple[float, float]:
    """Items inserted and sampled per second, until now."""
    now = time.monotonic()
    with self._lock:
      while len(self._looks) > 1 and self._looks[1][0] <= now - _WINDOW:
        self._looks.popleft()
      then, before = self._looks[0]
      if now - self._looks[-1][0] >= _STEP:
        self._looks.append((now, at))
    if now <= then:
      return math.nan, math.nan
    inserted, sampled = at.inserted - before.inserted, at.sampled - before.sampled
    return inserted / (now - then), sampled / (now - then)


def describe(
  table: Table,
  at: Standing,
  pace: Pace,
  *,
  mass: float,
  taken: int,
  writers: Waiting,
  samplers: Waiting,
  ages: Ages = UNKNOWN_AGES,
) -> TableStatistics:
  """The statistics of a table that stands `at` and takes so many bytes."""
  inserts, samples = pace.look(at)
  return TableStatistics(
    size=at.size,
    max_size=table.max_size,
    inserted=at.inserted,
    sampled=at.sampled,
    samples_per_insert=at.sampled / at.inserted if at.inserted else math.nan,
    credit=passing_samples(table.limiter, table.max_times_sampled, at),
    state=state(table.limiter, at),
    mass=mass,
    bytes=taken,
    inserts_per_second=inserts,
    samples_per_second=samples,
    waiting_writers=writers.callers,
    writers_blocked_seconds=writers.seconds,
    waiting_samplers=samplers.callers,
    samplers_blocked_seconds=samplers.seconds,
    sample_age=ages.mean,
    oldest_sample_age=ages.highest,
  )
