"""The nodes of a run that is to suffer: audited, and with a fault that waits inside."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import os
import resource
import threading
import time
from collections.abc import Callable
from typing import Any

from callsheet import Silence
from callsheet.launch.courier import wire
from callsheet.programs import Plan
from tests.chaos.faults import MACHINE, Fault
from tests.chaos.ledger import Ledger, of_counter, of_replay

# A stopped node is noticed after so many seconds.
SILENCE = Silence(process=6.0)
# Whose existence lets the fault strike, and who has struck.
STRIKE, STRUCK = 'strike', 'struck'

_LASTS = 5.0  # seconds
_CUTS = 5


def troubled(plan: Plan, fault: Fault, folder: str) -> Plan:
  """The same plan, with a ledger in `folder` and the fault in its victims."""
  return dataclasses.replace(
    plan,
    nodes=tuple(
      dataclasses.replace(
        node, make=Troubled(node.make, node.name, fault, folder), silence=SILENCE
      )
      for node in plan.nodes
    ),
  )


@dataclasses.dataclass(frozen=True)
class Troubled:
  """Makes a node's service, in its process."""

  make: Callable[..., Any]
  node: str
  fault: Fault
  folder: str

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    ledger = Ledger(self.folder, self.node)
    if self.fault.victim in (self.node, MACHINE) and self.fault.kind in _INSIDE:
      threading.Thread(target=self._wait, daemon=True, name='fault').start()

    def audited(value: Any) -> Any:
      peer = getattr(getattr(value, '_caller', None), 'link', None)
      if peer is not None and peer.peer == 'counter':
        return of_counter(value, ledger)
      if peer is not None and peer.peer == 'replay' and self.node.startswith('actor'):
        return of_replay(value, ledger)
      return value

    args = tuple(map(audited, args))
    service = self.make(*args, **{name: audited(v) for name, v in kwargs.items()})
    if self.node == 'replay':
      _note_life(service, ledger)
    return service

  def _wait(self) -> None:
    strike = os.path.join(self.folder, STRIKE)
    struck = os.path.join(self.folder, f'{STRUCK}-{self.node.replace("/", "-")}')
    while not os.path.exists(strike):
      time.sleep(0.02)
    if not os.path.exists(struck):  # In one life alone.
      open(struck, 'w').close()
      _INSIDE[self.fault.kind]()


def _note_life(service: Any, ledger: Ledger) -> None:
  ledger.write('begins', 'replay', 0)
  close = service.close

  def noted() -> None:
    inserted = sum(table.inserted for table in service.statistics().values())
    ledger.write('ends', 'replay', inserted)
    close()

  service.close = noted


def _cut() -> None:
  """The next large messages end in their middle, and the connections with them."""
  gather, left = wire.Channel._gather, [_CUTS]

  def cut(channel: Any, parts: list[memoryview], end: float | None) -> None:
    if left[0] <= 0:
      gather(channel, parts, end)
      return
    left[0] -= 1
    whole = b''.join(parts)
    channel._sock.send(whole[: len(whole) // 2])
    channel.abort()
    raise ConnectionResetError('cut in the middle of a message')

  wire.Channel._gather = cut  # type: ignore[method-assign]


def _lose_answers() -> None:
  """What was done is not answered: the connection is lost with the answer."""
  send, left = wire.Channel.send, [_CUTS]

  def lose(channel: Any, kind: int, *rest: Any) -> int:
    if kind == wire.RESULT and left[0] > 0:
      left[0] -= 1
      channel.abort()
      raise ConnectionResetError('lost with its answer')
    return send(channel, kind, *rest)

  wire.Channel.send = lose  # type: ignore[method-assign]


def _starve() -> None:
  """The process gets no more memory than it has, for a while."""
  with open('/proc/self/statm') as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
  before = resource.getrlimit(resource.RLIMIT_AS)
  # Below what it has: it gets nothing more, be it a kilobyte or a thread.
  resource.setrlimit(resource.RLIMIT_AS, (now // 2, before[1]))
  # What is free within what it has goes to this thread.
  hog: list[bytearray] = []
  for size in (2**20, 2**16, 2**12, 2**9):
    with contextlib.suppress(MemoryError):
      while True:
        hog.append(bytearray(size))
  time.sleep(_LASTS)
  hog.clear()
  resource.setrlimit(resource.RLIMIT_AS, before)


def _jump() -> None:
  """The clock on the wall jumps a day ahead, and later two days back."""
  now = time.time
  time.time = lambda: now() + 86_400
  time.sleep(_LASTS / 2)
  time.time = lambda: now() - 86_400


def _slow() -> None:
  """Whatever is opened, renamed or synced takes its time."""
  places = [
    (builtins, 'open'),
    *((os, name) for name in ('open', 'rename', 'replace', 'fsync', 'link')),
  ]
  originals = [(place, name, getattr(place, name)) for place, name in places]

  def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    def slowed(*args: Any, **kwargs: Any) -> Any:
      time.sleep(0.3)
      return function(*args, **kwargs)

    return slowed

  for place, name, function in originals:
    setattr(place, name, slow(function))
  time.sleep(_LASTS)
  for place, name, function in originals:
    setattr(place, name, function)


_INSIDE: dict[str, Callable[[], None]] = {
  'cut in a large message': _cut,
  'answers lost': _lose_answers,
  'no memory': _starve,
  'clock jumps': _jump,
  'slow disk': _slow,
}
