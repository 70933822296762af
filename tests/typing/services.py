"""The services that the samples beside this file wire up, rightly and wrongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from callsheet.calls import call_async


class Counter:
  def increment(self, amount: int = 1) -> int:
    return amount


class Counts(Protocol):
  def increment(self, amount: int = 1) -> int: ...


class Replay:
  def __init__(self, size: int) -> None:
    self.size = size

  def sample(self, table: str, batch_size: int) -> list[float]:
    return [0.0] * batch_size


class Learner:
  def __init__(self, replay: Replay, counter: Counts, *, rate: float = 1e-3) -> None:
    self.replay, self.counter, self.rate = replay, counter, rate

  def params(self) -> list[float]:
    return self.replay.sample('table', 2)


class Worker:
  def __init__(self, counter: Counter | None = None, seed: int = 0) -> None:
    self.counter, self.seed = counter, seed

  def work(self) -> Future[int]:
    assert self.counter is not None
    return call_async(self.counter.increment, 3)


class Boss:
  def __init__(
    self, workers: Sequence[Worker], named: Mapping[str, Counts] | None = None
  ) -> None:
    self.workers, self.named = workers, named


def make_replay(size: int = 10) -> Replay:
  return Replay(size)
