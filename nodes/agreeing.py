"""What the processes of one learner do next: all of them the same, or none would go on.

A dispatch over many processes waits for all of them. So each waits for a sample of its
own first, which a stop can end, and then they vote: nobody is in a dispatch alone.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from callsheet.errors import CallCancelled
from callsheet.nodes.prefetching import Placed, Prefetch
from callsheet.nodes.sharding import over


class Turn(NamedTuple):
  """The next dispatch.

  Attributes:
    placed: what is learnt on.
    publish: whether the parameters are published after it.
    gather: whether the state is gathered before it.
  """

  placed: Placed
  publish: bool
  gather: bool


class Agreement(Protocol):
  """Says what comes next."""

  def next(
    self, prefetch: Prefetch, stop: threading.Event, publish: bool, gather: bool = False
  ) -> Turn | None:
    """The next turn, once there is one; None at the end, or if one is stopping.

    Args:
      prefetch: this process's samples.
      stop: the node's.
      publish: whether it is time to; that of process 0 counts.
      gather: whether somebody wants the state; that of process 0 counts.

    Raises:
      CallCancelled: the stop came while it waited, and there is no other process.
      Exception: whatever the replay raised.
    """


def agreement() -> Agreement:
  """The one for the processes that there are."""
  return Alone() if jax.process_count() == 1 else Vote()


class Alone:
  """One process does what it likes."""

  def next(
    self, prefetch: Prefetch, stop: threading.Event, publish: bool, gather: bool = False
  ) -> Turn | None:
    """See `Agreement.next`."""
    placed = None if stop.is_set() else prefetch.take()
    return None if placed is None else Turn(placed, publish, gather)


class Vote:
  """A small reduction over one device of each process: the highest vote is done."""

  def __init__(self) -> None:
    first: dict[int, jax.Device] = {}
    for device in jax.devices():
      first.setdefault(device.process_index, device)
    mesh = Mesh(np.array([first[index] for index in sorted(first)]), ('processes',))
    self._each = over(mesh, 'processes')
    self._highest = jax.jit(lambda votes: votes.max(axis=0), out_shardings=over(mesh))
    self._leads = jax.process_index() == 0

  def next(
    self, prefetch: Prefetch, stop: threading.Event, publish: bool, gather: bool = False
  ) -> Turn | None:
    """See `Agreement.next`."""
    while True:
      own = _own(prefetch, stop)
      leads = self._leads
      vote, publishes, gathers = self._agree(own, publish and leads, gather and leads)
      if vote == _STOPPING:
        return None
      if vote == _READY and (placed := prefetch.take()) is not None:
        return Turn(placed, bool(publishes), bool(gathers))

  def _agree(self, *votes: int) -> list[int]:
    own = np.array([votes], np.int32)
    placed = jax.make_array_from_process_local_data(self._each, own)
    agreed: Any = np.asarray(self._highest(placed))
    return list(agreed)


def _own(prefetch: Prefetch, stop: threading.Event) -> int:
  try:
    if stop.is_set() or prefetch.at_end:
      return _STOPPING
    return _READY if prefetch.wait(_PATIENCE) else _NOT_YET
  except CallCancelled:
    return _STOPPING


_READY, _NOT_YET, _STOPPING = range(3)
# Seconds; so long may others be held up in a vote, where no stop reaches them.
_PATIENCE = 1.0
