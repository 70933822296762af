"""A client's connections to its server: opened when needed, pooled, replaced."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable

from callsheet.errors import AuthError, CallCancelled, CourierError, Unavailable
from callsheet.launch.courier import address as addresses
from callsheet.launch.courier import handshake, wire
from callsheet.launch.courier.deadlines import Expired, remaining
from callsheet.launch.courier.methods import Described
from callsheet.launch.courier.pickling import loads

_MOST_IDLE = 64
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25
_ONE_TRY = 10.0  # seconds for a connection and its handshake
_LAST_TRY = 1.0  # the same once this node is stopping


class _NotServing(Exception):
  """The server is there, but its service is still being made."""


class Connection:
  """A channel, with the methods that its server has told."""

  __slots__ = ('channel', 'methods', 'readable')

  def __init__(self, channel: wire.Channel, methods: dict[str, Described]) -> None:
    self.channel, self.methods = channel, methods
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    self.readable = poll.poll


class Link:
  """Gives out connections, one for each outstanding call.

  `cancelled`: the node is stopping; nobody waits any more for a peer that isn't there.
  `closed`: nothing may be called any more.
  """

  def __init__(
    self, address: str | Callable[[], str], secret: bytes, peer: str
  ) -> None:
    handshake.check_secret(secret)
    self._locate = address if callable(address) else None
    self._address = None if callable(address) else addresses.parse(address)
    self.peer = peer
    self.methods: dict[str, Described] | None = None
    self.cancelled = False
    self.closed = False
    self._secret = secret
    self.reset()

  @property
  def address(self) -> addresses.Address | str:
    """Where the server was found last, for messages."""
    return self._address or 'an address not known yet'

  def reset(self) -> None:
    """Forgets all connections: they belong to the parent of this forked process."""
    for channel in getattr(self, '_channels', ()):
      channel.close()
    self._lock = threading.Lock()
    self._idle: deque[Connection] = deque()
    self._channels: set[wire.Channel] = set()
    self._opening: set[wire.Channel] = set()
    self._wake = threading.Event()
    if self.cancelled:
      self._wake.set()

  def take_idle(self) -> Connection | None:
    """A pooled connection that was alive a moment ago."""
    while True:
      try:
        connection = self._idle.pop()
      except IndexError:
        return None
      if not connection.readable(0):
        return connection
      # An idle connection is silent; one with news has ended.
      self.discard(connection)

  def give_back(self, connection: Connection) -> None:
    """The call is over and the connection can carry the next one."""
    if self.closed or len(self._idle) >= _MOST_IDLE:
      self.discard(connection)
    else:
      self._idle.append(connection)
      if self.closed:
        self.close()

  def discard(self, connection: Connection) -> None:
    """Closes a connection that can't be used any more."""
    self._drop(connection.channel)

  def _drop(self, channel: wire.Channel) -> None:
    with self._lock:
      self._channels.discard(channel)
      channel.close()

  def cancel(self) -> None:
    """Nobody waits any more for a peer that isn't there."""
    self.cancelled = True
    self._wake.set()
    with self._lock:
      for channel in self._opening:
        channel.abort()

  def close(self) -> None:
    """Ends all connections, those in use as well."""
    self.closed = True
    self.cancel()
    while self._idle:
      try:
        self.discard(self._idle.pop())
      except IndexError:
        break
    with self._lock:
      for channel in self._channels:
        channel.abort()

  def stopping(self, method: str) -> CallCancelled:
    """The error of a call that this side gives up."""
    return CallCancelled(
      f'{self.peer}.{method} was given up: this node is stopping', self.peer
    )

  def open(self, end: float | None, method: str) -> Connection:
    """Connects, and tries until it works.

    Raises:
      Unavailable: nobody answered until `end` (monotonic seconds).
      AuthError: the other side does not hold the secret.
      CallCancelled: this side is stopping.
    """
    begun = time.monotonic()
    pause = _FIRST_PAUSE
    reason = 'there was no time left'
    while True:
      if self.closed:
        raise self.stopping(method)
      try:
        return self._try_open(end)
      except _NotServing:
        reason = 'it accepts connections but does not serve yet'
      except Expired:
        pass
      except (OSError, wire.Closed) as error:
        # An AuthError is no OSError: it is raised at once.
        reason = str(error) or 'it closed the connection'
      except wire.Malformed:
        raise AuthError(f'{self.peer!r} speaks another protocol', self.peer) from None
      if self.cancelled or self.closed:
        raise self.stopping(method)
      try:
        left = remaining(end)
      except Expired:
        raise self._unavailable(method, begun, reason) from None
      self._wake.wait(pause if left is None else min(pause, left))
      pause = min(pause * 2, _LONGEST_PAUSE)

  def _try_open(self, end: float | None) -> Connection:
    left = remaining(end)
    most = _ONE_TRY if not self.cancelled else _LAST_TRY
    until = time.monotonic() + (most if left is None else min(left, most))
    if self._locate is not None:
      # Asked anew each time: a server that restarts may do so on another host.
      self._address = addresses.parse(self._locate())
    assert self._address is not None
    sock = addresses.dial(self._address, until - time.monotonic())
    channel = None
    try:
      addresses.tune(sock)
      handshake.greet(sock, self._secret, until, self.peer)
      channel = wire.Channel(sock)
      with self._lock:
        self._channels.add(channel)
        self._opening.add(channel)
      self.methods = self._welcome(channel, until if self.cancelled else end)
      return Connection(channel, self.methods)
    except BaseException:
      if channel is None:
        sock.close()
      else:
        self._drop(channel)
      raise

  def _welcome(self, channel: wire.Channel, end: float | None) -> dict[str, Described]:
    """What the server sends once it serves."""
    try:
      channel.arm_until(end)
      welcome = channel.receive(end)
      if welcome is None or welcome[0] != wire.WELCOME:
        raise wire.Malformed
      methods: dict[str, Described] = loads(welcome[2], ())
      return methods
    except Expired:
      raise _NotServing from None
    finally:
      with self._lock:
        self._opening.discard(channel)

  def _unavailable(self, method: str, begun: float, reason: str) -> CourierError:
    waited = time.monotonic() - begun
    return Unavailable(
      f'{self.peer}.{method} was not sent: {self.peer!r} at {self.address} could not '
      f'be reached in {waited:.1f} s ({reason}). It may be tried again; see whether '
      'that node is running and what its log says',
      self.peer,
    )

  def __del__(self) -> None:
    for channel in getattr(self, '_channels', ()):
      channel.close()
