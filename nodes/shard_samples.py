"""One sample of what was drawn from several shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet import results
from callsheet.agents.base import Batch
from callsheet.errors import UsageError
from callsheet.nodes.replay import Sample
from callsheet.nodes.table_statistics import TableStatistics


class Part(NamedTuple):
  """What one shard gave.

  Attributes:
    shard: its number.
    sample: K = 1 batch.
    share: the probability with which this shard was chosen.
  """

  shard: int
  sample: Sample
  share: float


def masses(
  standing: Iterable[TableStatistics], able: NDArray[np.bool_]
) -> NDArray[np.float64]:
  """What shards are drawn from in proportion to, 0 of who can't be drawn from.

  Sizes, where the masses of those who can say nothing.
  """
  at = list(standing)
  of = np.where(able, [one.mass for one in at], 0.0)
  if np.isfinite(of).all() and of.sum() > 0:
    return of
  return np.where(able, [float(one.size) for one in at], 0.0)


def put_together(
  parts: Sequence[Part],
  leading: tuple[int, int],
  number: int,
  size: int,
  generator: np.random.Generator,
) -> Sample:
  """One sample from those of the shards.

  Args:
    parts: K times B items in all.
    leading: `(K, B)`.
    number: of all shards; keys become `key * number + shard`.
    size: of the tables together.
    generator: mixes them: what is cut off a batch is as good as the rest.

  Raises:
    UsageError: keys that are too large for that.
  """
  count = leading[0] * leading[1]
  first = parts[0].sample.batch.data
  columns = results.empty(
    {n: ((count, *c.shape[2:]), np.dtype(c.dtype)) for n, c in first.items()}
  )
  keys, probabilities = np.empty(count, np.uint64), np.empty(count, np.float32)
  order, done = generator.permutation(count), 0
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
  batch = Batch(
    {n: column.reshape(*leading, *column.shape[1:]) for n, column in columns.items()},
    probabilities.reshape(leading),
    np.full(leading[0], size, np.int32),
  )
  return Sample(batch, keys.reshape(leading))
