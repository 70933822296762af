"""Counts and latencies of each method, for a fraction of a microsecond a call."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

_FOLD = 256
_RECENT = 2048


@dataclass(frozen=True)
class MethodStatistics:
  """What one method has done since the start.

  Attributes:
    calls: answered calls, failed ones included.
    errors: calls that ended in an exception.
    bytes_in: bytes received for it, all calls together.
    bytes_out: bytes sent for it.
    latency_p50: seconds, of the newest 2,048 calls or so; at a server the handler's, at
      a client the round trip.
    latency_p99: seconds, of the same calls.
    latency_mean: seconds, of all calls.
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

  The hot path only appends, which needs no lock; the counting is put off, and done for
  many calls at once.
  """

  __slots__ = ('_begun', '_ended', '_lock', '_recent', '_started', '_sums')

  def __init__(self) -> None:
    self._begun: deque[None] = deque()
    self._ended: deque[tuple[int, int, int, bool]] = deque()
    self._lock = threading.Lock()
    self._started = 0
    self._sums = [0, 0, 0, 0, 0]  # calls, nanoseconds, bytes in, bytes out, errors
    self._recent: deque[int] = deque(maxlen=_RECENT)  # nanoseconds

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
    ended, begun, sums = self._ended, self._begun, self._sums
    # Ended first: a call that ends meanwhile has begun before.
    answered = [ended.popleft() for _ in range(len(ended))]
    self._started += len([begun.popleft() for _ in range(len(begun))])
    if not answered:
      return
    columns = tuple(zip(*answered, strict=True))
    self._recent.extend(columns[0])
    sums[0] += len(answered)
    for index, column in enumerate(columns, start=1):
      sums[index] += sum(column)

  def snapshot(self) -> MethodStatistics:
    """The statistics as of now."""
    with self._lock:
      self._fold()
      calls, nanoseconds, bytes_in, bytes_out, errors = self._sums
      recent = sorted(self._recent) or [0]
      return MethodStatistics(
        calls=calls,
        errors=errors,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        latency_p50=recent[len(recent) // 2] / 1e9,
        latency_p99=recent[int(len(recent) * 0.99)] / 1e9,
        latency_mean=nanoseconds / calls / 1e9 if calls else 0.0,
        running=self._started - calls,
      )
