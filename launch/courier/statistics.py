"""Counts and latencies of each method, for a fraction of a microsecond a call."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

_OCTAVES = 64
_STEPS = 8  # an octave: percentiles are right to about 6 %
_FOLD = 256


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
  """What is noted of one method's calls, by any number of threads.

  The hot path only appends, which needs no lock; the counting is put off.
  """

  __slots__ = ('_begun', '_ended', '_lock', '_started', '_steps', '_sums')

  def __init__(self) -> None:
    self._begun: deque[None] = deque()
    self._ended: deque[tuple[int, int, int, bool]] = deque()
    self._lock = threading.Lock()
    self._started = 0
    self._sums = [0, 0, 0, 0, 0]  # calls, errors, bytes in, bytes out, nanoseconds
    self._steps = [0] * (_OCTAVES * _STEPS)

  def begin(self) -> None:
    """A call has arrived, or leaves."""
    self._begun.append(None)

  def end(self, nanoseconds: int, bytes_in: int, bytes_out: int, failed: bool) -> None:
    """It has been answered."""
    self._ended.append((nanoseconds, bytes_in, bytes_out, failed))
    if len(self._ended) >= _FOLD:
      with self._lock:
        self._fold()

  def running(self) -> int:
    """Calls begun and not ended."""
    with self._lock:
      self._fold()
      return self._started - self._sums[0]

  def _fold(self) -> None:
    ended, steps, sums = self._ended, self._steps, self._sums
    # Ended first: a call that ends meanwhile has begun before.
    answered = [ended.popleft() for _ in range(len(ended))]
    for _ in range(len(self._begun)):
      self._begun.popleft()
      self._started += 1
    for nanoseconds, bytes_in, bytes_out, failed in answered:
      octave = max(nanoseconds, _STEPS).bit_length()
      steps[octave * _STEPS + (max(nanoseconds, _STEPS) >> (octave - 4)) - _STEPS] += 1
      sums[0] += 1
      sums[1] += failed
      sums[2] += bytes_in
      sums[3] += bytes_out
      sums[4] += nanoseconds

  def snapshot(self) -> MethodStatistics:
    """The statistics as of now."""
    with self._lock:
      self._fold()
      calls, errors, bytes_in, bytes_out, nanoseconds = self._sums
      return MethodStatistics(
        calls=calls,
        errors=errors,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        latency_p50=_percentile(self._steps, calls, 0.5),
        latency_p99=_percentile(self._steps, calls, 0.99),
        latency_mean=nanoseconds / calls / 1e9 if calls else 0.0,
        running=self._started - calls,
      )


def _percentile(steps: list[int], calls: int, fraction: float) -> float:
  seen = 0
  for step, count in enumerate(steps):
    seen += count
    if count and seen >= fraction * calls:
      octave, part = divmod(step, _STEPS)
      return float((part + _STEPS + 0.5) * 2.0 ** (octave - 4) / 1e9)
  return 0.0
