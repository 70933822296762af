"""How the shards of a replay stand, or stood a moment ago, and which are away."""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from callsheet.calls import call_async, with_deadline
from callsheet.errors import ConnectionLost, DeadlineExceeded, Unavailable
from callsheet.nodes.replay import Replay, TableStatistics

Statistics = Mapping[str, TableStatistics]

# What a call raises whose shard is away.
AWAY = (ConnectionLost, Unavailable, DeadlineExceeded)

# Seconds in which a shard tells its statistics, or is away until it does.
_ANSWER = 1.0
_QUESTION = 10.0  # seconds after which it is asked once more


class ShardWatch:
  """Asks the shards for their statistics, and waits for none that is away.

  A shard is away from the call on that it failed, or from a question on that it left
  open for a second. It is asked in the background, and is back once it answers.

  Args:
    shards: all of them.
    max_age: seconds that statistics are believed; none as soon as they show that
      somebody else draws as well, who could take what seems to be there.
    max_away: seconds that a shard may be away before `check` raises.
  """

  def __init__(self, shards: Sequence[Replay], max_age: float, max_away: float) -> None:
    self._shards, self._max_age, self._max_away = tuple(shards), max_age, max_away
    self._lock = threading.Lock()
    self._asked: dict[int, Future[Statistics]] = {}
    self._away: dict[int, float] = {}
    self._known: dict[int, Statistics] = {}
    self._looked_at = -math.inf
    # What was drawn from here, in all and since the last look: it is no longer there.
    self._drawn: Counter[tuple[int, str]] = Counter()
    self._used: Counter[tuple[int, str]] = Counter()
    # How many draws had been made elsewhere before the first look.
    self._before: dict[tuple[int, str], int] = {}

  def look(self, anew: bool = False) -> dict[int, Statistics]:
    """The statistics of the shards that answer, by their numbers.

    Args:
      anew: ask them, however lately they were asked.
    """
    with self._lock:
      if anew or time.monotonic() - self._looked_at > self._max_age:
        for shard in list(self._away):
          self._hear(shard)
        here = [i for i in range(len(self._shards)) if i not in self._away]
        asked = [self._ask(shard) for shard in here]
        self._used.clear()
        concurrent.futures.wait(asked, _ANSWER)
        for shard in here:
          if self._hear(shard):
            self._compare(shard)
          else:
            self._known.pop(shard, None)
        self._looked_at = time.monotonic()
      return dict(self._known)

  def here(self, shard: int) -> bool:
    """Whether it isn't away; asks nobody who is not."""
    with self._lock:
      return shard not in self._away or self._hear(shard)

  def lost(self, shard: int) -> None:
    """A call to it failed."""
    with self._lock:
      self._lose(shard)

  def check(self) -> None:
    """Raises Unavailable if a shard has been away for too long."""
    with self._lock:
      now = time.monotonic()
      for shard, since in self._away.items():
        if now - since >= self._max_away:
          raise Unavailable(
            f'shard {shard} of the {len(self._shards)} of this replay has not answered '
            f'for {now - since:.1f} s, and draws from the others alone would stay '
            'biased; see whether its node is running and what its log says'
          )

  def draw(self, shard: int, table: str, count: int) -> None:
    """So many items are about to be drawn."""
    with self._lock:
      self._drawn[shard, table] += count
      self._used[shard, table] += count

  def credit(self, shard: int, table: str) -> float:
    """Samples that may still be drawn from it, as far as is known."""
    with self._lock:
      known = self._known.get(shard)
      return known[table].credit - self._used[shard, table] if known else 0.0

  def _ask(self, shard: int) -> Future[Statistics]:
    if shard not in self._asked:
      # With a deadline: the last row of a program that stops has statistics, too.
      ask = with_deadline(self._shards[shard].statistics, _QUESTION)
      self._asked[shard] = call_async(ask)
    return self._asked[shard]

  def _hear(self, shard: int) -> bool:
    """Whether it has answered by now; if not, it is away and is asked on."""
    asked = self._ask(shard)
    if not asked.done():
      self._lose(shard)
      return False
    del self._asked[shard]
    try:
      self._known[shard] = asked.result()
    except AWAY:
      self._lose(shard)
      return False
    self._away.pop(shard, None)
    return True

  def _lose(self, shard: int) -> None:
    self._away.setdefault(shard, time.monotonic())
    self._known.pop(shard, None)
    self._before = {
      key: count for key, count in self._before.items() if key[0] != shard
    }
    self._ask(shard)

  def _compare(self, shard: int) -> None:
    """Notices that others draw from it."""
    for table, now in self._known[shard].items():
      elsewhere = now.sampled - self._drawn[shard, table]
      # Fewer: some are on their way, or the shard has begun anew.
      if elsewhere > self._before.setdefault((shard, table), elsewhere):
        self._max_age = 0.0
