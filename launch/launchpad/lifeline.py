"""How a worker that Launchpad started gets its ticket, and both notice a death.

Launchpad says neither when a process of its has ended nor how, and gives it nothing
but its command line. So each worker connects to a unix socket in a private folder:
there it is handed its ticket, and the socket's end is the launcher's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from callsheet.launch.remote.ticket import Ticket

_REACH = 60.0  # seconds that a worker looks for the lifeline
_AGAIN = 0.05  # seconds before it looks again


@dataclass
class _Expected:
  ticket: Ticket
  ended: Callable[[str], None]
  taken: bool = False
  pidfd: int | None = None


class Lifeline:
  """The launcher's end.

  Args:
    path: of the socket, in a folder that nobody else can enter.
    describe: the reason for the end of a unit that nobody asked for.
  """

  def __init__(self, path: str, describe: Callable[[str], str]) -> None:
    self._describe = describe
    self._lock = threading.Condition()
    self._units: dict[str, _Expected] = {}
    self._threads: list[threading.Thread] = []
    self._connections: set[socket.socket] = set()
    self._closed = False
    self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    self._listener.bind(path)
    self._listener.listen(1024)
    self._thread(self._accept)

  def expect(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """A worker for this ticket is about to be started; see `Engine.start`."""
    with self._lock:
      self._units[unit] = _Expected(ticket, ended)
      self._lock.notify_all()

  def kill(self, unit: str) -> None:
    """Ends the unit's process at once; one that has not come will find no ticket."""
    with self._lock:
      expected = self._units.get(unit)
      if expected is None:
        return
      came, expected.taken = expected.taken, True
      if expected.pidfd is not None:
        with contextlib.suppress(ProcessLookupError):
          signal.pidfd_send_signal(expected.pidfd, signal.SIGKILL)
    if not came:
      expected.ended('killed before its worker was there')

  def give_up(self, units: Iterable[str], reason: str) -> None:
    """Nobody will come for these units any more."""
    for unit in units:
      with self._lock:
        expected = self._units.get(unit)
        if expected is None or expected.taken:
          continue
        expected.taken = True
      expected.ended(reason)

  def close(self) -> None:
    """Lets go of every worker, which makes it leave."""
    with self._lock:
      self._closed = True
      self._lock.notify_all()
      for connection in self._connections:
        with contextlib.suppress(OSError):
          connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
      self._listener.shutdown(socket.SHUT_RDWR)
    for thread in list(self._threads):
      thread.join(5.0)
    self._listener.close()

  def _accept(self) -> None:
    while True:
      try:
        connection, _ = self._listener.accept()
      except OSError:
        return
      with self._lock:
        if self._closed:
          connection.close()
          return
        self._connections.add(connection)
      self._thread(self._follow, connection)

  def _follow(self, connection: socket.socket) -> None:
    """Hands one worker its ticket and waits for its end."""
    with connection, connection.makefile('r') as lines:
      kind, _, unit = lines.readline().strip().partition(' ')
      expected = self._claim(unit)
      if expected is not None:
        if kind == 'process':
          self._follow_process(connection, expected)
        else:
          self._hand_over(connection, expected.ticket)
          with contextlib.suppress(OSError):
            lines.read()
        expected.ended(self._describe(unit))
    with self._lock:
      self._connections.discard(connection)

  def _follow_process(self, connection: socket.socket, expected: _Expected) -> None:
    size = struct.calcsize('3i')
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid = struct.unpack('3i', peer)[0]
    try:
      pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
      return
    try:
      with self._lock:
        expected.pidfd = pidfd
      self._hand_over(connection, expected.ticket)
      select.select([pidfd], [], [])
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # What it started goes with it.
    finally:
      with self._lock:
        expected.pidfd = None
      os.close(pidfd)

  def _hand_over(self, connection: socket.socket, ticket: Ticket) -> None:
    with contextlib.suppress(OSError):
      connection.sendall(f'{ticket.dumps()}\n'.encode())

  def _claim(self, unit: str) -> _Expected | None:
    """The unit's place, once it is due; None if this worker is not wanted."""
    with self._lock:
      while not self._closed:
        expected = self._units.get(unit)
        if expected is not None:
          if expected.taken:
            return None
          expected.taken = True
          return expected
        self._lock.wait()
    return None

  def _thread(self, target: Callable[..., None], *args: object) -> None:
    thread = threading.Thread(target=target, args=args, daemon=True, name='lifeline')
    self._threads.append(thread)
    thread.start()


def reach(path: str, unit: str, kind: str) -> socket.socket:
  """The worker's end.

  Args:
    path: of the socket.
    unit: what to be.
    kind: 'process' where the worker has one to itself, 'thread' where it has not.

  Raises:
    OSError: nobody listens there for too long.
  """
  until = time.monotonic() + _REACH
  connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  while True:
    try:
      connection.connect(path)
    except OSError:
      # In a compiled program, workers may be there before the director is.
      if time.monotonic() > until:
        connection.close()
        raise
      time.sleep(_AGAIN)
      continue
    connection.sendall(f'{kind} {unit}\n'.encode())
    return connection
