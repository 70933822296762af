"""Counts and latencies of each method, for under a microsecond a call."""

from __future__ import annotations

import threading
from dataclasses import dataclass

_OCTAVES = 64
_STEPS = 8  # an octave: percentiles are right to about 6 %


@dataclass(frozen=True)
class MethodStatistics:
  """What one method has done since the start.

  Attributes:
    calls: answered calls, failed ones included.
    errors: calls that ended in an exception.
    bytes_in: bytes received for it, all calls together.
    bytes_out: bytes sent for it.
    latency_p50: seconds; at a server the handler's, at a client the round trip.
    latency_p99: seconds.
    latency_mean: seconds.
    running: calls that are not answered yet.
  """

  calls: int
  errors: int
  bytes_in: int
  bytes_out: int
  latency_p50: float
  latency_p99: float
  latency_mean: float
  running: int


class Record:
  """The counters behind one method's statistics; safe to use from many threads."""

  __slots__ = (
    '_calls',
    '_errors',
    '_in',
    '_lock',
    '_out',
    '_running',
    '_steps',
    '_time',
  )

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._calls = self._errors = self._in = self._out = self._running = self._time = 0
    self._steps = [0] * (_OCTAVES * _STEPS)

  def begin(self) -> None:
    """A call has arrived (or left)."""
    with self._lock:
      self._running += 1

  def end(self, nanoseconds: int, bytes_in: int, bytes_out: int, failed: bool) -> None:
    """It has been answered."""
    nanoseconds = max(nanoseconds, _STEPS)
    octave = nanoseconds.bit_length()
    step = octave * _STEPS + (nanoseconds >> (octave - 4)) - _STEPS
    with self._lock:
      self._running -= 1
      self._calls += 1
      self._errors += failed
      self._in += bytes_in
      self._out += bytes_out
      self._time += nanoseconds
      self._steps[step] += 1

  def snapshot(self) -> MethodStatistics:
    """The statistics as of now."""
    with self._lock:
      steps, calls = list(self._steps), self._calls
      mean = self._time / calls / 1e9 if calls else 0.0
      return MethodStatistics(
        calls=calls,
        errors=self._errors,
        bytes_in=self._in,
        bytes_out=self._out,
        latency_p50=_percentile(steps, calls, 0.5),
        latency_p99=_percentile(steps, calls, 0.99),
        latency_mean=mean,
        running=self._running,
      )


def _percentile(steps: list[int], calls: int, fraction: float) -> float:
  seen = 0
  for step, count in enumerate(steps):
    seen += count
    if count and seen >= fraction * calls:
      octave, part = divmod(step, _STEPS)
      return float((part + _STEPS + 0.5) * 2.0 ** (octave - 4) / 1e9)
  return 0.0
