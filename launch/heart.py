"""The heartbeat of a unit, and the pulse of each of its nodes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from callsheet.launch import courier
from callsheet.launch.events import Beat
from callsheet.programs.plan import NodePlan

_FIRST, _LONGEST = 1.0, 5.0  # seconds between two beats
_PATIENCE = 5.0  # seconds for a beat that is on its way
_SHARE = 6  # beats within the shortest of a unit's limits, at least


class Pulse:
  """Tells for how long a node neither made, nor answered, nor waited for a call."""

  def __init__(self) -> None:
    self._server: courier.Server | None = None
    self._runs = False
    self._seen: object = None
    self._looked_at = time.monotonic()
    self._quiet = 0.0

  def serves(self, server: courier.Server) -> None:
    """The service is up."""
    self._server = server

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Held while the node's `run` goes on."""
    self._runs = True
    try:
      yield
    finally:
      self._runs = False

  def quiet(self, clients: Sequence[Any], most: float) -> float:
    """Seconds of silence so far; 0 for a node that waits, or has nothing to do.

    Args:
      clients: those of the node.
      most: what one look adds at most; a process that was stopped was not silent.
    """
    now = time.monotonic()
    passed, self._looked_at = now - self._looked_at, now
    calls = [courier.activity(client) for client in clients]
    begun = sum(each for each, _ in calls)
    ended = sum(each for _, each in calls)
    arrived, answered, unanswered = (
      (0, 0, 0) if self._server is None else self._server.activity()
    )
    seen, before = (begun, ended, arrived, answered), self._seen
    self._seen = seen
    busy = self._runs or unanswered > 0
    if seen != before or begun > ended or not busy or courier.deadlines_suspended():
      self._quiet = 0.0
    else:
      self._quiet += min(passed, most)
    return self._quiet


class Living(Protocol):
  """One life of one node, see `NodeLife`."""

  @property
  def node(self) -> NodePlan: ...

  def quiet(self, most: float) -> float: ...


class Heart:
  """Beats in a thread of its own, as long as its process runs Python.

  Args:
    unit: whose.
    send: takes each beat; it may block.
  """

  def __init__(self, unit: str, send: Callable[[Beat], None]) -> None:
    self._unit, self._send = unit, send
    self._lives: Sequence[Living] = ()
    self._stop = threading.Event()
    self._thread = threading.Thread(
      target=self._beat, daemon=True, name=f'heart of {unit}'
    )

  def start(self) -> None:
    """Beats from now on, every second."""
    self._thread.start()

  def watch(self, lives: Sequence[Living]) -> None:
    """Has each beat tell of these; it comes as often as their limits need."""
    self._lives = lives

  def stop(self) -> None:
    """No beat comes after this, but for one that is held up on its way."""
    self._stop.set()
    if self._thread.is_alive() and self._thread is not threading.current_thread():
      self._thread.join(_PATIENCE)

  def _beat(self) -> None:
    period = 0.0
    while not self._stop.wait(period):
      lives = self._lives
      period = _period(lives) if lives else _FIRST
      quiet = {
        life.node.name: life.quiet(2 * period)
        for life in lives
        if life.node.silence.run is not None
      }
      self._send(Beat(self._unit, quiet))


def _period(lives: Sequence[Living]) -> float:
  limits = [life.node.silence.shortest() for life in lives]
  return min([_LONGEST, *(limit / _SHARE for limit in limits if limit is not None)])
