"""A dataset in a replay's place: it is drawn from, and nobody writes to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet import results
from callsheet.agents.base import Batch, EnvironmentSpec, Limiter, NStep, Table
from callsheet.calls import blocking
from callsheet.nodes import datasets, replay_checks
from callsheet.nodes.limiting import Standing
from callsheet.nodes.patience import Waiting
from callsheet.nodes.replay import Sample
from callsheet.nodes.table_statistics import Pace, TableStatistics, describe

_NOBODY = Waiting(0, 0.0)


class Dataset:
  """What a learner and a recorder see of a replay, `replay.Sampled`, of a dataset.

  All of it is in memory. Draws are uniform, with replacement, and never wait.

  Args:
    source: see `datasets`.
    spec: of the environment that is learnt for.
    writes: the agent's: under which table's name it is drawn from, and the discount.
    seed: of the draws.

  Raises:
    UsageError: see `datasets.load`.
  """

  def __init__(
    self, source: str, spec: EnvironmentSpec, writes: NStep, *, seed: int = 0
  ) -> None:
    self._columns = datasets.load(source, spec, writes.discount)
    self._size = len(self._columns['reward'])
    self._table = Table(
      writes.table, datasets.columns_of(spec), self._size, limiter=Limiter()
    )
    self._generator = np.random.default_rng(seed)
    self._lock, self._sampled = threading.Lock(), 0
    self._pace = Pace(self._standing())

  @blocking
  def sample(
    self,
    table: str,
    batch_size: int,
    num_batches: int = 1,
    timeout: float | None = None,
  ) -> Sample:
    """See `Sampled.sample`; keys are the numbers of rows."""
    found = replay_checks.find_table({self._table.name: self._table}, table)
    replay_checks.check_sizes(found, batch_size, num_batches)
    with self._lock:
      rows = self._generator.integers(self._size, size=(num_batches, batch_size))
      self._sampled += rows.size
    data = results.empty(
      {
        name: ((*rows.shape, *column.shape[1:]), column.dtype)
        for name, column in self._columns.items()
      }
    )
    for name, column in self._columns.items():
      # With mode='raise' numpy would copy once more.
      column.take(rows, axis=0, out=data[name], mode='clip')
    batch = Batch(
      data,
      np.full(rows.shape, 1 / self._size, np.float32),
      np.full(num_batches, self._size, np.int32),
    )
    return Sample(batch, rows.astype(np.uint64))

  def update_priorities(
    self, table: str, keys: NDArray[np.uint64], priorities: NDArray[np.floating[Any]]
  ) -> None:
    """Passes them over: all are as likely, whatever their priority."""
    replay_checks.find_table({self._table.name: self._table}, table)
    replay_checks.check_update(table, keys, priorities)

  def statistics(self) -> Mapping[str, TableStatistics]:
    """See `Sampled.statistics`; all was inserted before the first draw."""
    taken = sum(column.nbytes for column in self._columns.values())
    standing = describe(
      self._table,
      self._standing(),
      self._pace,
      mass=float(self._size),
      taken=taken,
      writers=_NOBODY,
      samplers=_NOBODY,
    )
    return {self._table.name: standing}

  def _standing(self) -> Standing:
    with self._lock:
      return Standing(self._size, self._size, self._sampled)
