"""Several replays as one: the storage grows with the hosts.

It lives with whoever calls it, not in a node of its own: a batch takes one way, not
two.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from callsheet.calls import blocking, call_async, with_deadline
from callsheet.errors import (
  ConnectionLost,
  ReplayTimeout,
  Unavailable,
  UnknownSource,
  UsageError,
)
from callsheet.nodes import replay_checks
from callsheet.nodes.patience import Patience
from callsheet.nodes.replay import Replay, Sample, Sampled, TableStatistics
from callsheet.nodes.shard_samples import Part, masses, put_together
from callsheet.nodes.shard_watch import AWAY, ShardWatch, Statistics
from callsheet.nodes.shards import together

_POLL = (0.002, 0.02)
# Seconds: for which a writer waits at a shard while another one may have room, and in
# which any shard that is there has answered what it needn't wait for.
_BRIEF, _REACH = 0.05, 5.0


@overload
def joined(replay: Replay | Sequence[Replay]) -> Replay: ...


@overload
def joined(replay: Sampled | Sequence[Replay]) -> Sampled: ...


def joined(replay: Sampled | Sequence[Replay]) -> Sampled:
  """One replay, whether it was given as one or in shards."""
  if not isinstance(replay, Sequence):
    return replay
  return replay[0] if len(replay) == 1 else ShardedReplay(replay)


class ShardedReplay:
  """A `Replay` of k others that hold the same tables.

  Blocks go to the shards in turn, whole as long as there is room: at a full shard a
  writer waits only briefly before it takes the rest to the next. What a source appends
  goes always to the same one. A sample is drawn from the shards in proportion to what
  is in them: each item's shard is chosen by mass (see `TableStatistics`), then the item
  by the shard. The probabilities it reports are those of both choices, so that
  importance weights are right even where masses are a moment old.

  Each shard's limiter holds its own share of the law (`shards.shares`), so that the
  sums keep it, too. A shard without credit is passed over as long as another has some:
  writers that wait at one and a learner that waits at another would wait for ever.

  A key is that of the shard, times k, plus the shard's number. New items without
  priorities get the highest one that their shard has seen.

  A shard's node may be restarted, best with the checkpoints that it had. Until then:
    insert: blocks go to the others. One that was on its way is sent again; should the
      shard have lost no more than the connection, it is there twice.
    append: waits for the source's own shard, as long as the courier does. The source
      then begins anew: what its environments' episodes had left is lost.
    sample: drawn from the others. That bias ends when the shard is back and its items
      are drawn in proportion again, or, after `max_away`, with an error.
    update_priorities: the shard's keys are passed over, like those of items that have
      left. It gives the keys anew that it gave after its checkpoint: a priority that
      comes late may be that of an item lost, and be set for a newer one.
    statistics: those of the others.
    checkpoint: fails; it is of all shards or none.

  Args:
    shards: at least one.
    max_age: seconds that their masses and credit are believed; not at all once it
      shows that others draw from them, who take what seemed to be there.
    max_away: seconds that samples are drawn without a shard.
  """

  def __init__(
    self, shards: Sequence[Replay], max_age: float = 0.05, max_away: float = 60.0
  ) -> None:
    if not shards:
      raise UsageError('a sharded replay needs a shard: ShardedReplay([replay, ...])')
    self._shards = tuple(shards)
    self._watch = ShardWatch(shards, max_age, max_away)
    self._generator = np.random.default_rng()
    self._lock = threading.Lock()
    # Not all callers begin at the same one.
    self._turn = int(self._generator.integers(len(shards)))
    self._sources: set[tuple[str, int | str]] = set()

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
      self._turn = turn = (self._turn + 1) % len(self._shards)
    patience, number = Patience(timeout), len(self._shards)
    done, tries = 0, 0
    while True:
      shard = self._next(table, turn + tries, patience, done)
      insert, wait = self._shards[shard].insert, patience.left()
      # Once round briefly; by then all are full, and one is as good as another.
      if tries < number > 1:
        wait = _BRIEF if wait is None else min(wait, _BRIEF)
        insert = with_deadline(insert, wait + _REACH)
      try:
        return done + insert(table, columns, priorities, wait)
      except ReplayTimeout as late:
        done += late.done
        if patience.spent() and tries >= number - 1:
          raise ReplayTimeout(
            f'table {table!r}: no insert within {patience.timeout:g} s ({done} were '
            f'stored in {number} shards); of the last of these, {late}',
            done,
          ) from None
        columns = {name: column[late.done :] for name, column in columns.items()}
        priorities = None if priorities is None else priorities[late.done :]
      except AWAY:
        self._watch.lost(shard)
      tries += 1

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
    shard, patience = self._shards[number % len(self._shards)], Patience(timeout)
    while True:
      try:
        made = shard.append(table, source, steps, fresh=fresh, timeout=patience.left())
      except UnknownSource:
        if (table, source) not in self._sources:
          raise
        fresh = True
      except ConnectionLost:
        if patience.spent():
          raise
        fresh = True
        time.sleep(_POLL[1])
      else:
        self._sources.add((table, source))
        return made

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
    parts: list[Part] = []
    size = 0
    while left:
      drawn, size = self._draw(table, left, patience, batch_size * num_batches)
      parts += drawn
      left -= sum(part.sample.keys.size for part in drawn)
    return put_together(
      parts, (num_batches, batch_size), len(self._shards), size, self._generator
    )

  def update_priorities(
    self, table: str, keys: NDArray[np.uint64], priorities: NDArray[np.floating[Any]]
  ) -> None:
    """See `Replay.update_priorities`."""
    # All of them, before any shard has set one.
    flat, values = replay_checks.check_update(table, keys, priorities)
    number = np.uint64(len(self._shards))
    of, own = flat % number, flat // number
    calls = {
      index: call_async(
        with_deadline(shard.update_priorities, _REACH), table, own[here], values[here]
      )
      for index, shard in enumerate(self._shards)
      if (here := of == index).any() and self._watch.here(index)
    }
    for index, call in calls.items():
      try:
        call.result()
      except AWAY:
        self._watch.lost(index)

  def checkpoint(self) -> str:
    """Of each shard; returns their folders, with `os.pathsep` between them.

    Each is consistent by itself; they are not of the same moment.
    """
    calls = [call_async(shard.checkpoint) for shard in self._shards]
    return os.pathsep.join(call.result() for call in calls)

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Replay.statistics`: of all shards together that answer.

    Raises:
      Unavailable: none does.
    """
    if not (known := self._watch.look(anew=True)):
      raise Unavailable(f'none of the {len(self._shards)} shards of the replay answers')
    of = list(known.values())
    return {name: together([each[name] for each in of]) for name in of[0]}

  def _next(self, table: str, turn: int, patience: Patience, done: int) -> int:
    """The first shard from that one on that isn't away, waiting for one."""
    number = len(self._shards)
    for _ in _polls(patience):
      for index in range(turn, turn + number):
        if self._watch.here(index % number):
          return index % number
      self._watch.check()
    raise ReplayTimeout(
      f'table {table!r}: no insert within {patience.timeout:g} s ({done} were stored): '
      f'none of its {number} shards answers',
      done,
    )

  def _draw(
    self, table: str, count: int, patience: Patience, wanted: int
  ) -> tuple[list[Part], int]:
    """Of so many items as many as the shards' limiters let pass, and the table's size.

    None, if just now a shard went away.
    """
    anew = False
    for _ in _polls(patience):
      known = self._watch.look(anew)
      self._watch.check()
      at = {index: _find(shard, table) for index, shard in known.items()}
      credit = [self._watch.credit(index, table) for index in at]
      most = np.array([int(min(max(each, 0), count)) for each in credit], np.int64)
      weights = masses(at.values(), most >= 1)
      if weights.sum() > 0:
        break
      anew = True
    else:
      done, away = wanted - count, len(self._shards) - len(at)
      states = ', '.join(f'{one.size} items, {one.state}' for one in at.values())
      raise ReplayTimeout(
        f'table {table!r}: no sample within {patience.timeout:g} s ({done} of '
        f'{wanted} were drawn): its {len(at)} shards have {states}'
        f'{f"; {away} more are away" if away else ""}',
        done,
      )
    shares = weights / weights.sum()
    counts = np.minimum(self._generator.multinomial(count, shares), most)
    calls = {}
    for index, share, number in zip(at, shares.tolist(), counts.tolist(), strict=True):
      if number:
        self._watch.draw(index, table, number)
        sample = self._shards[index].sample
        calls[index] = share, call_async(sample, table, number, 1, patience.left())
    drawn = []
    for index, (share, call) in calls.items():
      try:
        drawn.append(Part(index, call.result(), share))
      except AWAY:
        self._watch.lost(index)
    return drawn, sum(one.size for one in at.values())


def _polls(patience: Patience) -> Iterator[None]:
  """At once, and again after each pause until the patience is spent."""
  pause, longest = _POLL
  yield
  while not patience.spent():
    time.sleep(min(pause, patience.left() or pause))
    pause = min(2 * pause, longest)
    yield


def _find(shard: Statistics, table: str) -> TableStatistics:
  if table not in shard:
    raise ValueError(
      f'the replay has no table {table!r}; it has {", ".join(map(repr, shard))}'
    )
  return shard[table]
