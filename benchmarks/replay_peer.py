"""dm-reverb 0.7.2 as its own users run it: one column a tensor, its own clients.

Imported only where dm-reverb is installed. Server and client may share a process
(Reverb then reads the table without gRPC) or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import reverb  # type: ignore[import-untyped]

Columns = Mapping[str, NDArray[Any]]
_IN_FLIGHT = 512  # samples that a dataset's worker fetches ahead; more was no faster
_AHEAD = 50  # items on their way at most: from there on Reverb warns about each


class Peer:
  """A server with the tables; the benchmark's client may live elsewhere."""

  def __init__(self, tables: list[Table]) -> None:
    self.server = reverb.Server([_table(table) for table in tables], port=None)
    self.address = f'localhost:{self.server.port}'

  def close(self) -> None:
    self.server.stop()


def _table(table: Table) -> Any:
  sampler = reverb.selectors.Uniform()
  if table.sampler == 'prioritized':
    sampler = reverb.selectors.Prioritized(table.priority_exponent)
  return reverb.Table(
    table.name,
    sampler,
    reverb.selectors.Fifo(),
    table.max_size,
    reverb.rate_limiters.MinSize(1),
    signature={
      name: _spec(name, spec.shape, spec.dtype) for name, spec in table.columns.items()
    },
  )


def _spec(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
  import tensorflow as tf  # type: ignore[import-untyped]

  return tf.TensorSpec(shape, tf.as_dtype(np.dtype(dtype)), name)


def write(client: Any, table: str, block: Columns) -> None:
  """Writes a block with a `TrajectoryWriter`, an item for each row."""
  count = len(next(iter(block.values())))
  with client.trajectory_writer(num_keep_alive_refs=1) as writer:
    for row in range(count):
      writer.append({name: column[row] for name, column in block.items()})
      writer.create_item(
        table, 1.0, {name: history[-1] for name, history in writer.history.items()}
      )
      if row % _AHEAD == _AHEAD - 1:
        writer.flush()
    writer.flush()


def by_client(address: str, table: Table, batch: int) -> Callable[[], object]:
  """Batches by `Client.sample`, stacked by column."""
  client = reverb.Client(address)

  def draw() -> object:
    samples = list(client.sample(table.name, batch, emit_timesteps=False))
    return {
      name: np.stack([sample.data[index] for sample in samples])
      for index, name in enumerate(table.columns)
    }

  return draw


def by_dataset(address: str, table: Table, batch: int) -> Callable[[], object]:
  """Batches by `TrajectoryDataset`, which fetches ahead."""
  dataset = reverb.TrajectoryDataset.from_table_signature(
    address, table.name, max_in_flight_samples_per_worker=_IN_FLIGHT
  )
  batches: Iterator[Any] = iter(
    dataset.batch(batch, drop_remainder=True).as_numpy_iterator()
  )
  return lambda: next(batches)
