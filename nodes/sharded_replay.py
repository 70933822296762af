"""Several replays as one: the storage grows with the hosts.

It lives with whoever calls it, not in a node of its own: a batch takes one way, not
two.
"""

from __future__ import annotations

import math
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet import results
from callsheet.agents.base import Batch
from callsheet.calls import blocking, call_async, with_deadline
from callsheet.errors import ReplayTimeout, UsageError
from callsheet.nodes.patience import Patience
from callsheet.nodes.replay import Replay, Sample, TableStatistics
from callsheet.nodes.shards import together

_POLL = (0.002, 0.02)


def joined(replay: Replay | Sequence[Replay]) -> Replay:
  """One replay, whether it was given as one or in shards."""
  if not isinstance(replay, Sequence):
    return replay
  return replay[0] if len(replay) == 1 else ShardedReplay(replay)


class _Part(NamedTuple):
  shard: int
  sample: Sample
  share: float  # the probability with which this shard was chosen


class ShardedReplay:
  """A `Replay` of k others that hold the same tables.

  Blocks go to the shards in turn, whole; what a source appends always to the same one.
  A sample is drawn from the shards in proportion to what is in them: each item's shard
  is chosen by mass (see `TableStatistics`), then the item by the shard. The
  probabilities it reports are those of both choices, so that importance weights are
  right even where masses are a moment old.

  Each shard's limiter holds its own share of the law (`sharding.shares`), so that the
  sums keep it, too. A shard without credit is passed over as long as another has some:
  writers that wait at one and a learner that waits at another would wait for ever.

  A key is that of the shard, times k, plus the shard's number. New items without
  priorities get the highest one that their shard has seen.

  Args:
    shards: at least one.
    max_age: seconds that their masses and credit are believed; 0 where several draw
      from them, which could otherwise wait for what another one took.
  """

  def __init__(self, shards: Sequence[Replay], max_age: float = 0.05) -> None:
    if not shards:
      raise UsageError('a sharded replay needs a shard: ShardedReplay([replay, ...])')
    self._shards, self._max_age = tuple(shards), max_age
    self._generator = np.random.default_rng()
    self._lock = threading.Lock()
    # Not all callers begin at the same one.
    self._turn = int(self._generator.integers(len(shards)))
    self._known: list[Mapping[str, TableStatistics]] = []
    self._known_at = -math.inf
    # What was drawn since: it is no longer to be had.
    self._used: Counter[tuple[int, str]] = Counter()

  @blocking
  def insert(
    self,
    table: str,
    columns: Mapping[str, NDArray[np.generic]],
    priorities: NDArray[np.floating[Any]] | None = None,
    timeout: float | None = None,
  ) -> int:
    """See `Replay.insert`."""
    with self._lock:
      self._turn = (self._turn + 1) % len(self._shards)
      shard = self._shards[self._turn]
    return shard.insert(table, columns, priorities, timeout)

  @blocking
  def append(
    self,
    table: str,
    source: int | str,
    steps: Mapping[str, NDArray[np.generic]],
    *,
    fresh: bool = False,
    timeout: float | None = None,
  ) -> int:
    """See `Replay.append`."""
    number = source if isinstance(source, int) else zlib.crc32(source.encode())
    shard = self._shards[number % len(self._shards)]
    return shard.append(table, source, steps, fresh=fresh, timeout=timeout)

  @blocking
  def sample(
    self,
    table: str,
    batch_size: int,
    num_batches: int = 1,
    timeout: float | None = None,
  ) -> Sample:
    """See `Replay.sample`."""
    if batch_size < 1 or num_batches < 1:
      return self._shards[0].sample(table, batch_size, num_batches)  # which refuses it
    patience, left = Patience(timeout), batch_size * num_batches
    parts: list[_Part] = []
    while left:
      drawn = self._draw(table, left, patience, batch_size * num_batches)
      parts += drawn
      left -= sum(part.sample.keys.size for part in drawn)
    return self._put_together(table, parts, (num_batches, batch_size))

  def update_priorities(
    self, table: str, keys: NDArray[np.uint64], priorities: NDArray[np.floating[Any]]
  ) -> None:
    """See `Replay.update_priorities`."""
    given, values = np.asarray(keys), np.asarray(priorities)
    if given.dtype != np.uint64 or given.shape != values.shape:
      return self._shards[0].update_priorities(table, keys, priorities)  # likewise
    number = np.uint64(len(self._shards))
    of, own = given % number, given // number
    calls = [
      call_async(shard.update_priorities, table, own[here], values[here])
      for index, shard in enumerate(self._shards)
      if (here := of == index).any()
    ]
    for call in calls:
      call.result()

  def checkpoint(self) -> str:
    """Of each shard; returns their folders, with `os.pathsep` between them.

    Each is consistent by itself; they are not of the same moment.
    """
    calls = [call_async(shard.checkpoint) for shard in self._shards]
    return os.pathsep.join(call.result() for call in calls)

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Replay.statistics`: of all shards together."""
    calls = [call_async(shard.statistics) for shard in self._shards]
    of = [call.result() for call in calls]
    return {name: together([each[name] for each in of]) for name in of[0]}

  def _draw(
    self, table: str, count: int, patience: Patience, wanted: int
  ) -> list[_Part]:
    """At least one of so many items, as far as the shards' limiters let them pass."""
    pause, longest = _POLL
    while True:
      at = [self._table(shard, table) for shard in self._look()]
      credit = [one.credit - self._used[i, table] for i, one in enumerate(at)]
      most = np.array([int(min(max(each, 0), count)) for each in credit])
      weights = _masses(at, most >= 1)
      if weights.sum() > 0:
        break
      if patience.spent():
        done = wanted - count
        states = ', '.join(f'{one.size} items, {one.state}' for one in at)
        raise ReplayTimeout(
          f'table {table!r}: no sample within {patience.timeout:g} s ({done} of '
          f'{wanted} were drawn): its {len(at)} shards have {states}',
          done,
        )
      time.sleep(min(pause, patience.left() or pause))
      pause = min(2 * pause, longest)
      self._known_at = -math.inf
    shares = weights / weights.sum()
    counts = np.minimum(self._generator.multinomial(count, shares), most)
    for index, number in enumerate(counts.tolist()):
      self._used[index, table] += number
    calls = {
      index: call_async(self._shards[index].sample, table, number, 1, patience.left())
      for index, number in enumerate(counts.tolist())
      if number
    }
    return [_Part(i, call.result(), float(shares[i])) for i, call in calls.items()]

  def _put_together(
    self, table: str, parts: Sequence[_Part], leading: tuple[int, int]
  ) -> Sample:
    count, number = leading[0] * leading[1], len(self._shards)
    first = parts[0].sample.batch.data
    columns = results.empty(
      {n: ((count, *c.shape[2:]), np.dtype(c.dtype)) for n, c in first.items()}
    )
    keys, probabilities = np.empty(count, np.uint64), np.empty(count, np.float32)
    # In random order: what is cut off a batch is as good as the rest.
    order, done = self._generator.permutation(count), 0
    for shard, sample, share in parts:
      places = order[done : done + sample.keys.size]
      done += sample.keys.size
      for name, column in columns.items():
        column[places] = np.asarray(sample.batch.data[name])[0]
      own = sample.keys[0]
      if number > 1 and (own >= np.uint64(2**64 // number)).any():
        raise UsageError(
          'the keys of this engine leave no room to name their shard; shards are '
          'native replays'
        )
      keys[places] = own * np.uint64(number) + np.uint64(shard)
      probabilities[places] = np.asarray(sample.batch.probabilities)[0] * share
    size = sum(self._table(shard, table).size for shard in self._known)
    batch = Batch(
      {n: column.reshape(*leading, *column.shape[1:]) for n, column in columns.items()},
      probabilities.reshape(leading),
      np.full(leading[0], size, np.int32),
    )
    return Sample(batch, keys.reshape(leading))

  def _look(self) -> list[Mapping[str, TableStatistics]]:
    """How the shards stand, or stood a moment ago."""
    now = time.monotonic()
    if now - self._known_at > self._max_age:
      # Without a deadline: so a stop of this node ends the wait.
      calls = [call_async(with_deadline(s.statistics, None)) for s in self._shards]
      self._known = [call.result() for call in calls]
      self._used.clear()
      self._known_at = now
    return self._known

  def _table(self, shard: Mapping[str, TableStatistics], table: str) -> TableStatistics:
    if table not in shard:
      raise ValueError(
        f'the replay has no table {table!r}; it has {", ".join(map(repr, shard))}'
      )
    return shard[table]


def _masses(
  at: Sequence[TableStatistics], able: NDArray[np.bool_]
) -> NDArray[np.float64]:
  """What is drawn in proportion to, 0 of who can't be drawn from.

  Sizes, where the masses of those who can say nothing.
  """
  masses = np.where(able, [one.mass for one in at], 0.0)
  if np.isfinite(masses).all() and masses.sum() > 0:
    return masses
  return np.where(able, [float(one.size) for one in at], 0.0)
