"""Where workers sign on: the launcher's side of what it and they say to each other.

Workers call, the launcher never does: so it needs no way into their hosts, and a worker
that comes back after its link was cut finds its place, or learns that it has lost it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from callsheet.calls import blocking
from callsheet.launch.events import Event, Exited, Failed, Failure
from callsheet.launch.remote.versions import difference, versions

POLL = 5.0  # seconds that a worker's question for orders waits at most
STACKS = '#stacks'  # the order to dump them; no node has such a name
_CONFIRM = 3.0  # seconds that the end of a dismissed worker may take to show


@dataclass(frozen=True)
class Welcome:
  """What a worker is told that may work.

  Attributes:
    life: which of the unit's lives it is.
    nodes: the unit's `NodePlan`s, pickled.
    deadline: of a call that names none.
  """

  life: int
  nodes: bytes
  deadline: float | None


@dataclass(frozen=True)
class Refusal:
  """Why a worker may not; `again` if it should ask again in a moment."""

  reason: str
  again: bool = False


@dataclass
class _Life:
  number: int
  report: Callable[[Event], None]
  begun: float
  host: str = ''
  seen: float | None = None
  heard: int = 0
  stops: list[str] = field(default_factory=list)
  dismissed: float | None = None
  over: bool = False


class Desk:
  """Keeps which worker is which unit, where nodes listen, and whom to stop.

  Args:
    nodes: of each unit, pickled.
    first: the name of each unit's first node, which takes the blame for its worker.
    deadline: of a call that names none.
    arrival: seconds that a unit's worker may take to sign on; None for no limit.
    silence: seconds without a word after which a worker counts as lost.
  """

  def __init__(
    self,
    nodes: Mapping[str, bytes],
    first: Mapping[str, str],
    *,
    deadline: float | None = 60.0,
    arrival: float | None = 60.0,
    silence: float = 45.0,
  ) -> None:
    self._nodes, self._first, self._deadline = nodes, first, deadline
    self._arrival, self._silence = arrival, silence
    self._versions = versions()
    self._changed = threading.Condition()
    self._lives: dict[str, _Life] = {}
    self._addresses: dict[str, str] = {}
    self._closed = False

  # What workers call.

  @blocking
  def sign_on(
    self, unit: str, life: int | None, host: str, versions: Mapping[str, str]
  ) -> Welcome | Refusal:
    """A worker reports for duty; one that names no life waits until one is due."""
    until = time.monotonic() + POLL
    with self._changed:
      while isinstance(given := self._give(unit, life, host), Refusal):
        left = until - time.monotonic()
        if not given.again or left <= 0:
          return given
        self._changed.wait(left)
    if unlike := difference(self._versions, versions):
      reason = f'its host {host} has {unlike}: install the same on every host'
      self._fail(unit, given, reason)
      return Refusal(reason)
    return Welcome(given.number, self._nodes[unit], self._deadline)

  def announce(self, unit: str, life: int, node: str, address: str) -> bool:
    """Says where a node listens; False if this life is over."""
    with self._changed:
      if self._living(unit, life) is None:
        return False
      self._addresses[node] = address
    return True

  def address_of(self, node: str) -> str | None:
    """Where a node listens, as announced last."""
    return self._addresses.get(node)

  def tell(self, unit: str, life: int, index: int, event: Event) -> bool:
    """What happened, events numbered from 1; one told twice counts once.

    Returns:
      False if this life is over.
    """
    with self._changed:
      living = self._living(unit, life)
      if living is None:
        return False
      if index <= living.heard:
        return True
      living.heard = index
    if isinstance(event, Exited):
      self.end(unit, life, event.reason)
    else:
      living.report(event)
    return True

  @blocking
  def orders(self, unit: str, life: int, known: int) -> list[str] | None:
    """Waits for orders, and is the worker's sign of life.

    Args:
      unit: whose.
      life: which.
      known: how many it has had already.

    Returns:
      The nodes to stop that are new, or `STACKS`; none after some seconds; None for:
      leave.
    """
    until = time.monotonic() + POLL
    with self._changed:
      while (living := self._living(unit, life)) is not None:
        left = until - time.monotonic()
        if len(living.stops) > known or left <= 0:
          return living.stops[known:]
        self._changed.wait(left)
    return None

  # What the crew calls.

  def expect(self, unit: str, report: Callable[[Event], None]) -> int:
    """A new life of a unit is about to start; gives its number."""
    with self._changed:
      before = self._lives.get(unit)
      number = 1 if before is None else before.number + 1
      self._lives[unit] = _Life(number, report, time.monotonic())
      self._changed.notify_all()
    return number

  def stop(self, unit: str, node: str) -> None:
    """Orders a node to end."""
    with self._changed:
      self._lives[unit].stops.append(node)
      self._changed.notify_all()

  def dump(self, unit: str) -> bool:
    """Orders a worker to dump its stacks; False if it is none that answers."""
    with self._changed:
      life = self._lives.get(unit)
      if life is None or life.over or life.seen is None:
        return False
      life.stops.append(STACKS)
      self._changed.notify_all()
      return time.monotonic() - life.seen < POLL + _CONFIRM

  def dismiss(self, unit: str) -> None:
    """Orders a worker to leave at once."""
    with self._changed:
      life = self._lives[unit]
      life.dismissed = life.dismissed or time.monotonic()
      self._changed.notify_all()

  def end(self, unit: str, life: int, reason: str) -> None:
    """Nothing is left of this life; reported once."""
    with self._changed:
      ended = self._lives[unit]
      if ended.number != life or ended.over:
        return
      ended.over = True
      self._changed.notify_all()
    ended.report(Exited(unit, reason))

  def host_of(self, unit: str) -> str:
    """Where the unit's worker is; empty before it has signed on."""
    life = self._lives.get(unit)
    return '' if life is None else life.host

  def look(self) -> None:
    """Ends the lives that have not come, have fallen silent, or were dismissed."""
    now = time.monotonic()
    for unit, life in list(self._lives.items()):
      if life.over:
        continue
      if life.dismissed is not None:
        if now - life.dismissed > _CONFIRM:
          self.end(unit, life.number, 'it was killed; its host does not confirm that')
      elif life.seen is None:
        if self._arrival is not None and now - life.begun > self._arrival:
          self.end(
            unit,
            life.number,
            f'its worker has not signed on within {self._arrival:g} s: see whether its '
            "host is up, has callsheet installed and can reach the launcher's host",
          )
      elif now - life.seen > self._silence:
        self.end(
          unit,
          life.number,
          f'its host {life.host} has been silent for {self._silence:g} s',
        )

  def close(self) -> None:
    """Nobody is expected any more."""
    with self._changed:
      self._closed = True
      for life in self._lives.values():
        life.over = True
      self._changed.notify_all()

  def _give(self, unit: str, life: int | None, host: str) -> _Life | Refusal:
    """The life that a worker asks for, which is its own from now on."""
    expected = self._lives.get(unit)
    if self._closed or unit not in self._nodes:
      return Refusal(f'the program has no unit {unit!r} (any more)')
    if expected and not expected.over and life is None and expected.host == host:
      self.end(
        unit,
        expected.number,
        f'its process on {host} is gone, and its cluster has started another',
      )
    if expected is None or expected.over:
      return Refusal(f'{unit!r} is not due to start', again=life is None)
    if life is not None and life != expected.number:
      return Refusal(f'{unit!r} has another life by now')
    if expected.seen is not None:
      return Refusal(f'{unit!r} is at work on {expected.host}', again=life is None)
    expected.host, expected.seen = host, time.monotonic()
    return expected

  def _living(self, unit: str, number: int) -> _Life | None:
    """The life of this number if it is the unit's present one; it has been heard of."""
    life = self._lives.get(unit)
    if life is None or life.number != number or life.over or life.dismissed:
      return None
    life.seen = time.monotonic()
    return life

  def _fail(self, unit: str, life: _Life, reason: str) -> None:
    node = self._first[unit]
    life.report(Failed(node, Failure(node, reason, refused=True)))
    self.end(unit, life.number, reason)
