"""Counts and latencies of each method, for a fraction of a microsecond a call."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from threading import get_ident

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
    oldest: seconds since the first of these began; 0 if there is none.
    quiet: seconds since the last answer; inf before the first.
  """

  calls: int
  errors: int
  bytes_in: int
  bytes_out: int
  latency_p50: float
  latency_p99: float
  latency_mean: float
  running: int
  oldest: float
  quiet: float


class Record:
  """What is noted of one method's calls, by any number of threads.

  The hot path only appends, and keeps the calls under way by thread, which needs no
  lock; the counting is put off, and done for many calls at once.
  """

  __slots__ = ('_ended', '_ended_at', '_lock', '_open', '_recent', '_sums')

  def __init__(self) -> None:
    # By thread, which is in one call at a time: what a torn one left is overwritten.
    self._open: dict[int, float] = {}
    self._ended_at = -math.inf
    self._ended: deque[tuple[int, int, int, bool]] = deque()
    self._lock = threading.Lock()
    self._sums = [0, 0, 0, 0, 0]  # calls, nanoseconds, bytes in, bytes out, errors
    self._recent: deque[int] = deque(maxlen=_RECENT)  # nanoseconds

  def begin(self, at: float) -> None:
    """A call has arrived, or leaves, at this monotonic second, in this thread."""
    self._open[get_ident()] = at

  def end(
    self, at: float, seconds: float, bytes_in: int, bytes_out: int, failed: bool
  ) -> None:
    """It has been answered, after so many seconds."""
    self._open.pop(get_ident(), None)
    self._ended_at = at
    self._ended.append((int(seconds * 1e9), bytes_in, bytes_out, failed))
    if len(self._ended) >= _FOLD:
      with self._lock:
        self._fold()

  def counts(self) -> tuple[int, int]:
    """Calls begun, and calls ended."""
    with self._lock:
      self._fold()
      ended = self._sums[0]
    return ended + len(self._open), ended

  def running(self) -> int:
    """Calls begun and not ended."""
    return len(self._open)

  def under_way(self) -> dict[int, float]:
    """When the calls that are not answered yet began, by the number of their thread."""
    return self._open.copy()

  def latencies(self) -> list[int]:
    """Nanoseconds of the newest calls."""
    with self._lock:
      self._fold()
      return list(self._recent)

  def _fold(self) -> None:
    ended, sums = self._ended, self._sums
    answered = [ended.popleft() for _ in range(len(ended))]
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
      low, high = percentiles(self._recent)
      under_way, now = self.under_way().values(), time.monotonic()
      return MethodStatistics(
        calls=calls,
        errors=errors,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        latency_p50=low,
        latency_p99=high,
        latency_mean=nanoseconds / calls / 1e9 if calls else 0.0,
        running=len(under_way),
        oldest=max(0.0, now - min(under_way, default=now)),
        quiet=now - self._ended_at,
      )


def percentiles(nanoseconds: Iterable[int]) -> tuple[float, float]:
  """The 50th and the 99th, in seconds; 0 of nothing."""
  ordered = sorted(nanoseconds) or [0]
  return ordered[len(ordered) // 2] / 1e9, ordered[int(len(ordered) * 0.99)] / 1e9
