"""The service's side: threads that adapt to how many handlers run at once.

Idle connections wait in one epoll. A thread that takes a call from it makes sure first
that another one waits, so any number of handlers may sleep. A thread that has answered
lingers on that connection for a moment, which spares a busy caller the epoll.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from callsheet.launch.courier import address as addresses
from callsheet.launch.courier import handshake, wire
from callsheet.launch.courier.answers import answer
from callsheet.launch.courier.methods import Method, described, exported, reserved
from callsheet.launch.courier.pickling import dumps
from callsheet.launch.courier.statistics import MethodStatistics, Record

_log = logging.getLogger(__name__)

_MOST_WAITING = 16
_MOST_LINGERING = 8
_LINGER = 0.02  # seconds
_HANDSHAKE = 10.0  # seconds
_GRACE = 0.5  # seconds for calls in progress once close has begun


class Server:
  """Listens at once; calls wait until `serve`.

  Args:
    address: 'unix:/path' or 'tcp:host:port', port 0 for a free one.
    secret: the program's secret; callers that don't hold it get no further.
    name: the node's name, for messages and threads.

  Raises:
    UsageError: the address is taken or can't be read, or the secret is empty.
  """

  def __init__(self, address: str, secret: bytes, name: str) -> None:
    handshake.check_secret(secret)
    self._secret, self._name = secret, name
    self._listener, self._address = addresses.listen(addresses.parse(address))
    path = self._address.path
    self._inode = os.stat(path).st_ino if path else 0
    self._lock = threading.Lock()
    self._ended = threading.Condition(self._lock)
    self._methods: tuple[Method, ...] | None = None
    self._unwelcomed: list[wire.Channel] = []
    self._channels: dict[int, wire.Channel] = {}
    self._threads: set[threading.Thread] = set()
    self._waiting = 0
    self._may_linger: deque[None] = deque([None] * _MOST_LINGERING)
    self._closed = False
    self._epoll = select.epoll()
    self._stop_reading, self._stop = os.pipe()
    self._epoll.register(self._stop_reading, select.EPOLLIN)
    self._start('accept', self._accept)
    _servers.add(self)

  @property
  def address(self) -> str:
    """Where it listens, a port of 0 resolved."""
    return str(self._address)

  def serve(
    self,
    service: object,
    control: Mapping[str, Callable[..., object]] = MappingProxyType({}),
  ) -> None:
    """Makes the public methods callable, but run and close; waiting calls run now.

    Args:
      service: whose methods.
      control: further ones that the service knows nothing of, for `courier.control`.
    """
    methods = exported(service) + reserved(control)
    with self._lock:
      self._methods = methods
      waiting, self._unwelcomed = self._unwelcomed, []
    for channel in waiting:
      self._start('call', self._work, channel)

  def statistics(self) -> dict[str, MethodStatistics]:
    """What each method has done so far."""
    return {name: record.snapshot() for name, record in self.records().items()}

  def records(self) -> dict[str, Record]:
    """Where that is noted, by method."""
    methods = self._methods or ()
    return {m.name: m.record for m in methods if not m.name.startswith('_')}

  def activity(self) -> tuple[int, int, int]:
    """Calls arrived, calls answered, and those unanswered that are not `@blocking`."""
    begun, ended, unanswered = 0, 0, 0
    for method in self._methods or ():
      if method.name.startswith('_'):  # Those that look at a node don't keep it alive.
        continue
      arrived, answered = method.record.counts()
      begun, ended = begun + arrived, ended + answered
      unanswered += 0 if method.blocking else arrived - answered
    return begun, ended, unanswered

  def __repr__(self) -> str:
    return f'<server of {self._name!r} at {self._address}>'

  def _start(self, what: str, target: Callable[..., None], *args: object) -> None:
    thread = threading.Thread(
      target=self._run, args=(target, *args), name=f'{self._name} {what}', daemon=True
    )
    with self._lock:
      if self._closed:
        return
      self._threads.add(thread)
    thread.start()

  def _run(self, target: Callable[..., None], *args: object) -> None:
    try:
      target(*args)
    finally:
      with self._lock:
        self._threads.discard(threading.current_thread())
        self._ended.notify_all()

  # Arriving

  def _accept(self) -> None:
    while not self._closed:
      try:
        sock, _ = self._listener.accept()
      except OSError:
        if not self._closed:
          time.sleep(0.02)  # out of file descriptors, most likely
        continue
      self._start('call', self._arrive, sock)
    self._listener.close()

  def _arrive(self, sock: socket.socket) -> None:
    try:
      addresses.tune(sock)
      if not handshake.admit(sock, self._secret, time.monotonic() + _HANDSHAKE):
        sock.close()
        return
      channel = wire.Channel(sock)
      channel.arm(_LINGER)
    except OSError:
      sock.close()
      return
    with self._lock:
      if self._closed:
        channel.close()
        return
      self._channels[channel.fileno()] = channel
      if self._methods is None:
        self._unwelcomed.append(channel)
        return
    self._work(channel)

  # Serving

  def _work(self, channel: wire.Channel | None) -> None:
    """A thread's life: with `channel`, welcome and serve it first."""
    fresh = channel is not None
    while True:
      if channel is None:
        channel = self._next()
        if channel is None:
          return
      try:
        if fresh:
          self._welcome(channel)
        self._attend(channel, fresh)
        self._park(channel, fresh)
      except (OSError, wire.Closed, wire.Malformed):
        self._drop(channel)
      except Exception:
        self._drop(channel)
        if not self._closed:
          _log.exception('%r dropped a connection', self)
      fresh, channel = False, None

  def _next(self) -> wire.Channel | None:
    """Waits for a connection with something to read; None ends the thread."""
    with self._lock:
      if self._closed or self._waiting >= _MOST_WAITING:
        return None
      self._waiting += 1
    try:
      ready = self._epoll.poll(maxevents=1)
    except (OSError, ValueError):
      ready = []
    with self._lock:
      self._waiting -= 1
      if self._closed or not ready:
        return None
      alone = self._waiting == 0
      channel = self._channels.get(ready[0][0])
    if alone:
      self._start('call', self._work, None)
    return channel

  def _park(self, channel: wire.Channel, fresh: bool) -> None:
    flags = select.EPOLLIN | select.EPOLLONESHOT
    if fresh:
      self._epoll.register(channel.fileno(), flags)
      with self._lock:
        alone = self._waiting == 0
      if alone:
        self._start('call', self._work, None)
    else:
      self._epoll.modify(channel.fileno(), flags)

  def _drop(self, channel: wire.Channel) -> None:
    with self._lock:
      if not channel.closed:
        self._channels.pop(channel.fileno(), None)
        channel.close()

  def _welcome(self, channel: wire.Channel) -> None:
    told = described(self._methods or ())
    channel.send(wire.WELCOME, 0, dumps(told), None)

  def _attend(self, channel: wire.Channel, fresh: bool) -> None:
    """Answers calls until none comes for a moment, or others need the thread more."""
    methods = self._methods or ()
    message = self._linger(channel) if fresh else channel.receive(None, idle=True)
    while message is not None:
      answer(channel, methods, message, self._name)
      message = None  # its buffers are free before the wait, not after it
      message = self._linger(channel)

  def _linger(self, channel: wire.Channel) -> wire.Message | None:
    try:
      self._may_linger.pop()
    except IndexError:
      return None
    try:
      return channel.receive(None, idle=True)
    finally:
      self._may_linger.append(None)

  # Ending

  def close(self) -> None:
    """Stops: calls in progress get half a second, blocked ones are cut off at once.

    Handlers that don't return stay behind on daemon threads.
    """
    with self._lock:
      if self._closed:
        return
      self._closed = True
    self._stop_listening()
    os.write(self._stop, b'x')  # ends every wait in epoll
    deadline = time.monotonic() + _GRACE
    with self._lock:
      while self._answering() and time.monotonic() < deadline:
        self._ended.wait(0.01)
      for channel in self._channels.values():
        channel.abort()
      own = {threading.current_thread()}
      deadline = time.monotonic() + _GRACE
      while self._threads - own and time.monotonic() < deadline:
        self._ended.wait(deadline - time.monotonic())
      channels, self._channels = list(self._channels.values()), {}
      for channel in channels:
        channel.close()
    _servers.discard(self)
    self._epoll.close()
    os.close(self._stop)
    os.close(self._stop_reading)

  def _answering(self) -> bool:
    """Whether handlers run that should be done in a moment."""
    methods = self._methods or ()
    return any(not m.blocking and m.record.running() for m in methods)

  def _stop_listening(self) -> None:
    path = self._address.path
    try:
      if path and os.stat(path).st_ino == self._inode:
        os.unlink(path)
    except FileNotFoundError:
      pass
    with contextlib.suppress(OSError):
      self._listener.shutdown(socket.SHUT_RDWR)

  def forget(self) -> None:
    """For a forked child: the parent serves on, so only this copy is closed."""
    self._lock = threading.Lock()
    self._closed = True
    self._listener.close()
    for channel in list(self._channels.values()):
      channel.close()
    self._epoll.close()
    os.close(self._stop)
    os.close(self._stop_reading)


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork() -> None:
  for server in list(_servers):
    server.forget()


os.register_at_fork(after_in_child=_after_fork)
