"""Samples on their way from the replay to the learner's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import NamedTuple

from callsheet.agents.base import Batch, Sampling
from callsheet.calls import call_async, lasting
from callsheet.nodes.replay import Sample, Sampled


class Placed(NamedTuple):
  """A sample and its batches on the device.

  On the CPU these may stand on the sample's own memory: jax keeps it for as long.
  """

  sample: Sample
  batch: Batch


class Prefetch:
  """Draws samples ahead of the one that is learnt on, and puts them on the device.

  Both happen in the thread that the call's answer comes in: there is none to be ended
  but the call's own, and a stop reaches it as it reaches any call. What is drawn ahead
  lacks the priorities of what is learnt on meanwhile: of `ahead` dispatches.

  Args:
    replay: where the samples come from.
    samples: the table, and B.
    sizes: of each sample its K, in order; nothing is drawn behind the last.
    ahead: samples asked for beyond the one that was taken last; with 0 the next one is
      asked for only once it is wanted.
    place: puts the batches on the device; None leaves them where they are.
  """

  def __init__(
    self,
    replay: Sampled,
    samples: Sampling,
    sizes: Iterable[int],
    ahead: int,
    place: Callable[[Batch], Batch] | None,
  ) -> None:
    self._replay, self._samples = replay, samples
    self._sizes, self._ahead, self._place = iter(sizes), ahead, place
    self._next_size = next(self._sizes, None)
    self._asked: deque[Future[Placed]] = deque()
    self._ask_for(ahead)

  def take(self) -> Placed | None:
    """The next sample, waiting for it; None behind the last.

    Raises:
      CallCancelled: the stop came while it waited.
      Exception: whatever the replay raised.
    """
    self._ask_for(1)
    if not self._asked:
      return None
    placed = self._asked.popleft().result()
    self._ask_for(self._ahead)
    return placed

  def wait(self, timeout: float) -> bool:
    """Whether the next sample is there, waiting for it up to `timeout` seconds.

    Raises:
      CallCancelled: the stop came while it waited.
      Exception: whatever the replay raised.
    """
    self._ask_for(1)
    if not wait(list(self._asked)[:1], timeout).done:
      return False
    self._asked[0].result()
    return True

  @property
  def at_end(self) -> bool:
    """Whether the last sample has been taken."""
    return not self._asked and self._next_size is None

  @property
  def ready(self) -> bool:
    """Whether the next sample is there, or has failed."""
    return bool(self._asked) and self._asked[0].done()

  def _ask_for(self, count: int) -> None:
    while len(self._asked) < count and self._next_size is not None:
      size, self._next_size = self._next_size, next(self._sizes, None)
      self._ask(size)

  def _ask(self, size: int) -> None:
    placed: Future[Placed] = Future()
    self._asked.append(placed)

    def place(answered: Future[Sample]) -> None:
      try:
        sample = answered.result()
        batch = sample.batch
        if self._place is not None:
          batch = self._place(batch)
        placed.set_result(Placed(sample, batch))
      except BaseException as error:
        placed.set_exception(error)

    def draw(again: bool) -> Future[Sample]:
      samples = self._samples
      return call_async(self._replay.sample, samples.table, samples.batch_size, size)

    # What a replay that was lost had drawn, its restarted one has forgotten.
    lasting(draw).add_done_callback(place)
