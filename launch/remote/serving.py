"""A unit's life on its host, once its worker holds a ticket."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import queue
import signal
import sys
import threading
import time
from typing import Any

from callsheet.calls import with_deadline
from callsheet.errors import CourierError, UsageError
from callsheet.launch import courier
from callsheet.launch.courier.address import parse
from callsheet.launch.events import Beat, Event, Exited, Failed, Stopped
from callsheet.launch.heart import Heart
from callsheet.launch.node import NodeLife
from callsheet.launch.remote.book import DeskBook
from callsheet.launch.remote.desk import POLL, STACKS, Refusal, Welcome
from callsheet.launch.remote.routes import address_towards
from callsheet.launch.remote.ticket import Ticket
from callsheet.launch.remote.versions import versions
from callsheet.programs.plan import NodePlan
from callsheet.programs.resources import Never

_CALL = 10.0  # seconds for a call of the desk
_AGAIN = 1.0  # seconds before the desk is asked again


def serve(ticket: Ticket) -> int:
  """Lives the unit's life; gives the exit code."""
  try:
    return _Shift(ticket).serve()
  except (CourierError, UsageError) as error:
    print(f'callsheet: {error}', file=sys.stderr)
    return 1


class _Shift:
  """From signing on to leaving."""

  def __init__(self, ticket: Ticket) -> None:
    self._ticket = ticket
    self._secret = bytes.fromhex(ticket.secret)
    self._desk: Any = courier.connect(
      ticket.desk, self._secret, peer='desk', deadline=_CALL
    )
    self._host = ''
    self._life = 0
    self._code = 0 if ticket.life is None else 1
    self._outbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
    self._reached = time.monotonic()
    self._ended = self._failed = False
    self._over = threading.Event()

  def serve(self) -> int:
    welcome = self._sign_on()
    self._life = welcome.life
    book = DeskBook(
      self._desk, self._announce, self._secret, self._host, welcome.deadline
    )
    if self._ticket.life is None:
      # A cluster that ends its pods tells the launcher, too: it stops them in order.
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
    heart = Heart(self._ticket.unit, self._beat)
    heart.start()
    nodes = self._unpack(welcome)
    left = {node.name for node in nodes}
    lock = threading.Lock()

    def report(event: Event) -> None:
      self._failed = self._failed or isinstance(event, Failed)
      self._outbox.put(event)
      if isinstance(event, Stopped):
        with lock:
          left.discard(event.node)
          if not left:
            self._ended = True
            self._outbox.put(Exited(self._ticket.unit))

    lives = {node.name: NodeLife(node, book, report) for node in nodes}
    heart.watch(tuple(lives.values()))
    threading.Thread(target=self._obey, args=(lives,), daemon=True).start()
    threading.Thread(target=self._send, daemon=True).start()
    for life in lives.values():
      life.start()
    self._over.wait()
    return self._code if self._failed else 0

  def _beat(self, beat: Beat) -> None:
    # Behind a cut link they would only pile up; what they say is old by then.
    if self._outbox.empty():
      self._outbox.put(beat)

  def _unpack(self, welcome: Welcome) -> tuple[NodePlan, ...]:
    unit = self._ticket.unit
    try:
      nodes: tuple[NodePlan, ...] = pickle.loads(welcome.nodes)
    except Exception as error:  # What they are made of is not installed here.
      reason = f'its nodes can not be unpickled on {self._host}: {error!r}'
      self._insist(self._desk.tell, unit, self._life, 1, Exited(unit, reason))
      raise UsageError(f'{unit}: {reason}') from error
    # A cluster starts those again that end badly: only those that may be.
    if any(not isinstance(node.restart, Never) for node in nodes):
      self._code = 1
    return nodes

  def _sign_on(self) -> Welcome:
    ticket, found = self._ticket, versions()
    arrival = ticket.patience if ticket.arrival is None else ticket.arrival
    until = time.monotonic() + arrival
    self._host = _own_address(ticket.desk, until)
    reach = with_deadline(self._desk.sign_on, max(1.0, until - time.monotonic()))
    while True:
      answer = reach(ticket.unit, ticket.life, self._host, found)
      if isinstance(answer, Welcome):
        return answer
      assert isinstance(answer, Refusal)
      if not answer.again:
        raise UsageError(answer.reason)
      if ticket.life is not None and time.monotonic() > until:
        raise UsageError(answer.reason)
      time.sleep(_AGAIN)

  def _announce(self, node: str, address: str) -> None:
    self._insist(self._desk.announce, self._ticket.unit, self._life, node, address)

  def _obey(self, lives: dict[str, NodeLife]) -> None:
    """Asks for orders again and again, which is the sign of life, too."""
    known = 0
    ask = with_deadline(self._desk.orders, POLL + _CALL)
    while True:
      stops = self._insist(ask, self._ticket.unit, self._life, known)
      for node in stops:
        if node == STACKS:
          faulthandler.dump_traceback(all_threads=True)
        else:
          lives[node].stop()
      known += len(stops)

  def _send(self) -> None:
    """Tells the desk what happens, in order and once."""
    unit, life = self._ticket.unit, self._life
    index = 0
    while True:
      event = self._outbox.get()
      index += 1
      if isinstance(event, Beat):
        # Once: whether the link is cut for good is for the orders to find out, or the
        # worker would leave before the launcher counts its host as lost.
        with contextlib.suppress(CourierError):
          self._desk.tell(unit, life, index, event)
        continue
      self._insist(self._desk.tell, unit, life, index, event)
      if isinstance(event, Exited):
        self._over.set()
        return

  def _insist(self, method: Any, *args: object) -> Any:
    """Calls the desk even through a cut link; leaves when told to, or cut off."""
    while True:
      try:
        answer = method(*args)
      except CourierError as error:
        if time.monotonic() - self._reached > self._ticket.patience:
          self._leave(f'the launcher could not be reached: {error}')
        time.sleep(_AGAIN)
        continue
      self._reached = time.monotonic()
      if answer is None or answer is False:
        if self._ended:
          self._over.set()  # Its nodes have ended, nobody waits to hear of it.
          threading.Event().wait()
        self._leave('dismissed by the launcher')
      return answer

  def _leave(self, why: str) -> None:
    print(f'callsheet: {self._ticket.unit}: {why}', file=sys.stderr, flush=True)
    if self._code == 0:
      os._exit(0)
    leave()


def _own_address(desk: str, until: float) -> str:
  """This host's address towards the desk, once the desk's host has a name."""
  address = parse(desk)
  while True:
    try:
      return address_towards(address.host, address.port)
    except UsageError:
      if time.monotonic() > until:
        raise
    time.sleep(_AGAIN)


def leave() -> None:
  """Ends this process and what it started, at once."""
  if os.getpgrp() == os.getpid():
    os.killpg(0, signal.SIGKILL)
  os._exit(1)
