"""One node over time: what it has told, and what follows from one time to the next."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from callsheet.launch.courier import MethodStatistics
from callsheet.launch.observe.document import EdgeStatus, Shares
from callsheet.launch.observe.observer import COMPUTING, IDLE, SENDING, Observation

WINDOW = 5.0  # seconds that rates and shares look back on


def shares(samples: Mapping[str, int]) -> Shares:
  """How the time was spent, by how often a node was seen doing what."""
  total = sum(samples.values())
  if total <= 0:
    return Shares()
  waiting = {
    name: count / total
    for name, count in samples.items()
    if name not in (COMPUTING, SENDING, IDLE) and count > 0
  }
  return Shares(
    samples.get(COMPUTING, 0) / total,
    samples.get(SENDING, 0) / total,
    waiting,
    samples.get(IDLE, 0) / total,
  )


@dataclass(frozen=True)
class Told:
  """What a node has told, and when, in monotonic seconds."""

  at: float
  what: Observation


class Track:
  """What one node has told so far; a new life of it begins with new counts."""

  def __init__(self) -> None:
    self._told: deque[Told] = deque()
    self._before: Counter[str] = Counter()

  @property
  def newest(self) -> Told | None:
    """What it told last; None before the first."""
    return self._told[-1] if self._told else None

  def add(self, what: Observation, at: float | None = None) -> None:
    """Takes in what it tells now."""
    at = time.monotonic() if at is None else at
    if self._told and self._told[-1].what.life != what.life:
      self._before.update(self._told[-1].what.samples)
      self._told.clear()
    self._told.append(Told(at, what))
    while len(self._told) > 2 and self._told[1].at <= at - WINDOW:
      self._told.popleft()

  def whole(self) -> Counter[str]:
    """How often it was seen doing what, in all its lives."""
    samples = Counter(self._before)
    if self._told:
      samples.update(self._told[-1].what.samples)
    return samples

  def recent(self) -> Counter[str]:
    """How often within the window."""
    if not self._told:
      return Counter()
    samples = Counter(self._told[-1].what.samples)
    if len(self._told) > 1:
      samples.subtract(self._told[0].what.samples)
    return samples

  def cpu(self) -> float | None:
    """Cores that its process used within the window; None if not known yet."""
    if len(self._told) < 2:
      return None
    first, last = self._told[0], self._told[-1]
    used = last.what.cpu_seconds - first.what.cpu_seconds
    return max(0.0, used / max(last.at - first.at, 1e-9))

  def edge(self, caller: str, callee: str) -> EdgeStatus:
    """Its calls of another node."""
    if not self._told:
      return EdgeStatus(caller, callee)
    first, last = self._told[0], self._told[-1]
    calls = last.what.calls.get(callee)
    if calls is None:
      return EdgeStatus(caller, callee, calls_per_second=0.0, bytes_per_second=0.0)
    now = calls.methods
    earlier = first.what.calls.get(callee)
    then = {} if earlier is None or first is last else earlier.methods
    seconds = max(last.at - first.at, 1e-9)
    known = first is not last
    rates = {
      name: (each.calls - _of(then, name).calls) / seconds for name, each in now.items()
    }
    moved = sum(_bytes(each) - _bytes(_of(then, name)) for name, each in now.items())
    answered = sum(each.calls for each in now.values())
    return EdgeStatus(
      caller=caller,
      callee=callee,
      calls=answered,
      errors=sum(each.errors for each in now.values()),
      calls_per_second=sum(rates.values()) if known else None,
      bytes_per_second=moved / seconds if known else None,
      latency_p50=calls.latency_p50 if answered else None,
      latency_p99=calls.latency_p99 if answered else None,
      open=sum(each.running for each in now.values()),
      methods=rates if known else {},
    )

  def slowest(self) -> tuple[str, float]:
    """The open call that is out longest, 'node.method', and its seconds; '' if none."""
    if not self._told:
      return '', 0.0
    out = [
      (each.oldest, f'{peer}.{name}')
      for peer, calls in self._told[-1].what.calls.items()
      for name, each in calls.methods.items()
      if each.running
    ]
    seconds, call = max(out, default=(0.0, ''))
    return call, seconds

  def parameter_age(self) -> float | None:
    """Seconds since the newest answer to a pull of parameters; None without any."""
    if not self._told:
      return None
    quiet = [
      calls.methods['parameters'].quiet
      for calls in self._told[-1].what.calls.values()
      if 'parameters' in calls.methods
    ]
    age = min(quiet, default=math.inf)
    return age if math.isfinite(age) else None


_NOTHING = MethodStatistics(0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0.0, math.inf)


def _of(methods: Mapping[str, MethodStatistics], name: str) -> MethodStatistics:
  return methods.get(name, _NOTHING)


def _bytes(each: MethodStatistics) -> int:
  return each.bytes_in + each.bytes_out
