"""A dm-reverb server in this process and the client that talks to it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callsheet.agents.base import Selector, Table
from callsheet.errors import UsageError
from callsheet.imports import one_at_a_time
from callsheet.nodes import reverb_port
from callsheet.nodes.limiting import Standing, bounds

_CALL_SECONDS = 30


class ReverbServer:
  """Reverb 0.7.2 by its binding.

  The binding, not its wrappers: they leave a temporary folder behind, draw one item a
  round trip, and complain when the interpreter ends.

  Attributes:
    port: of its gRPC service.
    client: a `pybind.Client`.
  """

  def __init__(
    self,
    tables: Iterable[Table],
    port: int | None,
    checkpoint_root: Path | None,
    restore_from: Path | None,
  ) -> None:
    """Starts it.

    Args:
      tables: what it holds.
      port: the one wanted; None takes a free one.
      checkpoint_root: an empty folder for it to write to, None for no checkpoints.
      restore_from: one of its own checkpoints.

    Raises:
      UsageError: the port is taken, or dm-reverb is not there.
    """
    reverb = _import_reverb()
    checkpointer = None
    if checkpoint_root is not None:
      checkpointer = reverb.pybind.create_default_checkpointer(
        str(checkpoint_root), '', None if restore_from is None else str(restore_from)
      )
    with reverb_port.reserved(port) as self.port:
      self._server = reverb.pybind.Server(
        [to_reverb(reverb, table).internal_table for table in tables],
        self.port,
        checkpointer,
      )
      reverb_port.keep_on_host(self.port)
    self.client = reverb.pybind.Client(f'localhost:{self.port}')
    self._parse = importlib.import_module('reverb.cc.schema_pb2').TableInfo.FromString
    self._new_options = reverb.pybind.ConstantChunkerOptions

  def standings(self) -> dict[str, Standing]:
    """Where each table stands; about 50 us."""
    standings = {}
    for answer in self.client.ServerInfo(_CALL_SECONDS):
      info = self._parse(answer)
      limiter = info.rate_limiter_info
      standings[info.name] = Standing(
        info.current_size,
        limiter.insert_stats.completed,
        limiter.sample_stats.completed,
      )
    return standings

  def new_writer(self, chunk_length: int) -> Any:
    """A `pybind.TrajectoryWriter` whose items are one step long."""
    options = self._new_options(chunk_length, chunk_length)
    return self.client.NewTrajectoryWriter(options, False)

  def stop(self) -> None:
    """Ends it; takes 5 seconds if a writer is still open."""
    # Who hangs up first keeps the port's end for a minute: let it be the client.
    del self.client
    self._server.Stop()
    del self._server


def _import_reverb() -> Any:
  # Otherwise TensorFlow tells of every accelerator library that it doesn't find.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  try:
    with one_at_a_time:
      return importlib.import_module('reverb')
  except ImportError as error:
    raise UsageError(
      f'ReverbReplay needs dm-reverb 0.7.2 and tensorflow 2.8.4, which have wheels for '
      f'Python 3.10 on Linux only; run the program there: {error}'
    ) from error


def to_reverb(reverb: Any, table: Table) -> Any:
  """The table as a `reverb.Table`; `reverb` is the package."""
  limiter = table.limiter
  if limiter.samples_per_insert is None:
    limits = reverb.rate_limiters.MinSize(limiter.min_size)
  else:
    # What all of Reverb's limiters are made of: one law, and its four numbers.
    limits = reverb.rate_limiters.RateLimiter(
      float(limiter.samples_per_insert), limiter.min_size, *bounds(limiter)
    )
  return reverb.Table(
    name=table.name,
    sampler=_selector(reverb, table, table.sampler),
    remover=_selector(reverb, table, table.remover),
    max_size=table.max_size,
    max_times_sampled=table.max_times_sampled,
    rate_limiter=limits,
  )


def _selector(reverb: Any, table: Table, selector: Selector) -> Any:
  if selector == 'prioritized':
    return reverb.selectors.Prioritized(float(table.priority_exponent))
  makers = {
    'uniform': reverb.selectors.Uniform,
    'fifo': reverb.selectors.Fifo,
    'lifo': reverb.selectors.Lifo,
    'min_heap': reverb.selectors.MinHeap,
    'max_heap': reverb.selectors.MaxHeap,
  }
  return makers[selector]()
