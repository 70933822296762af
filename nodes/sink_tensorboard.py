"""Rows as TensorBoard's event files, by tensorboardX: without TensorFlow."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from callsheet.nodes.sinks import Figures, Sink, numbers, require, steps
from callsheet.outcomes import Outcome


@dataclass(frozen=True)
class TensorBoard:
  """Every figure is a scalar over environment steps; the outcome is a text at the end.

  Attributes:
    directory: gets one more event file each time that it is opened.

  Raises:
    UsageError: tensorboardX isn't installed.
  """

  directory: str
  name: str = 'TensorBoard'

  def __post_init__(self) -> None:
    require('tensorboardX', 'tensorboard', self.name)

  def open(self) -> Sink:
    """See `SinkOptions.open`."""
    from tensorboardX.event_file_writer import EventsWriter

    os.makedirs(self.directory, exist_ok=True)
    # Its own name has seconds alone, and a file of the same second is overwritten.
    suffix = f'.{os.getpid()}.{time.monotonic_ns()}'
    return _Events(EventsWriter(os.path.join(self.directory, 'events'), suffix))


class _Events:
  """Writes at once: tensorboardX's own writer has a thread that fails unheard."""

  def __init__(self, writer: Any) -> None:
    self._writer, self._steps = writer, 0

  def append(self, row: Figures) -> None:
    from tensorboardX.proto.summary_pb2 import Summary

    self._steps = steps(row)
    figures = numbers(row).items()
    values = [Summary.Value(tag=name, simple_value=value) for name, value in figures]
    self._write(Summary(value=values))
    self._writer.flush()

  def finish(self, outcome: Outcome) -> None:
    from tensorboardX.summary import text

    self._write(text('outcome', outcome))
    self._writer.close()

  def _write(self, summary: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    event = Event(wall_time=time.time(), step=self._steps, summary=summary)
    self._writer.write_event(event)
