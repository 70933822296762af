"""Requests that wait until they are answered together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from callsheet.errors import CallCancelled

A = TypeVar('A')

# Seconds after which a wait looks whether it was stopped.
_POLL = 0.05


@dataclass(frozen=True, eq=False)
class Request(Generic[A]):
  """What one actor has asked.

  Attributes:
    actor: who asks.
    observation: `[B, ...]`.
    first: `[B]` bool, where an episode begins.
    at: when it came, by the monotonic clock.
    answer: what it waits for.
  """

  actor: int
  observation: NDArray[Any]
  first: NDArray[Any]
  at: float = field(default_factory=time.monotonic)
  answer: Future[A] = field(default_factory=Future)


class Batching(Generic[A]):
  """Makes batches of requests, in the order in which they came.

  A batch is complete once another request may not join it, which has no room in it or
  is of an actor that is in it, once it is full, or once its first has waited for long
  enough.

  Args:
    max_size: environments in one batch.
    max_wait: seconds that the first of a batch waits for others to join.
  """

  def __init__(self, max_size: int, max_wait: float) -> None:
    self._max_size, self._max_wait = max_size, max_wait
    self._changed = threading.Condition()
    self._waiting: deque[Request[A]] = deque()
    self._closed: str | None = None

  def put(self, request: Request[A]) -> Future[A]:
    """Lets a request of at most `max_size` environments wait; returns its answer.

    Raises:
      CallCancelled: it is closed.
    """
    with self._changed:
      if self._closed is not None:
        raise CallCancelled(self._closed)
      self._waiting.append(request)
      self._changed.notify()
    return request.answer

  def take(self, stop: threading.Event) -> list[Request[A]]:
    """The next batch, waiting for it; for one thread.

    Once the stop has come it waits no longer, and may return an empty one.
    """
    batch: list[Request[A]] = []
    size, actors = 0, set()
    with self._changed:
      while not stop.is_set():
        while self._waiting:
          first = self._waiting[0]
          if size + len(first.observation) > self._max_size or first.actor in actors:
            return batch
          batch.append(self._waiting.popleft())
          actors.add(first.actor)
          size += len(first.observation)
        left = _POLL
        if batch:
          left = batch[0].at + self._max_wait - time.monotonic()
          if left <= 0 or size == self._max_size:
            return batch
        self._changed.wait(min(left, _POLL))
    return batch

  def close(self, why: str) -> None:
    """Requests that wait, and those that come, end with a CallCancelled."""
    with self._changed:
      self._closed = why
      waiting, self._waiting = list(self._waiting), deque()
    refuse(waiting, why)


def refuse(requests: list[Request[A]], why: str) -> None:
  """Ends these requests with a CallCancelled."""
  for request in requests:
    request.answer.set_exception(CallCancelled(why))
