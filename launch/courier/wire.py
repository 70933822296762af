"""Messages on an authenticated connection.

header   kind u16, method u16, number of buffers u32, length of the body u64
table    the length of each buffer, u64
body     a pickle
buffers  what the pickle refers to, one after the other; with the flag `shared` in the
         kind they lie in a segment instead, which the end of the table names

A connection carries one call at a time, so nothing may follow a message until it has
been answered: a small message is one system call on either side.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from callsheet import buffers as receive_buffers
from callsheet.launch.courier import segments
from callsheet.launch.courier.deadlines import remaining
from callsheet.launch.courier.pickling import Pickled

CALL, RESULT, ERROR, WELCOME = 0xCA01, 0xCA02, 0xCA03, 0xCA04
LARGEST_MESSAGE = 1 << 34

Message = tuple[int, int, memoryview, Sequence[memoryview], int]
"""Kind, method, body, buffers, size; the body only lasts until the next message."""

_SHARED = 0x0080
_T = TypeVar('_T')
_KINDS = frozenset({CALL, RESULT, ERROR, WELCOME})
_HEADER = struct.Struct('<HHIQ')
_TIMEOUT = struct.Struct('@ll')
_SCRATCH = 32 * 1024
_JOINED = 64 * 1024
_MOST_BUFFERS = 1 << 20
_GATHERED = 512  # at a time; the kernel takes 1024


class Malformed(Exception):
  """What came is no message: the connection can't be used any more."""


class Closed(Exception):
  """The other side has closed the connection, or has died."""


class TooLarge(Exception):
  """The message is larger than the courier carries."""


def check_size(pickled: Pickled) -> None:
  """Raises TooLarge if body and buffers are more than the courier carries."""
  chunks, buffers = pickled
  size = sum(map(len, chunks)) + sum(buffer.nbytes for buffer in buffers)
  if size > LARGEST_MESSAGE or len(buffers) > _MOST_BUFFERS:
    raise TooLarge(
      f'{size:,} bytes in {len(buffers):,} buffers; a message carries at most '
      f'{LARGEST_MESSAGE:,} bytes in {_MOST_BUFFERS:,}'
    )


class Channel:
  """One end of a connection.

  Its owner alone sends, receives and closes; other threads may only `abort` it. The
  kernel ends a wait after the armed time, which is then compared with the deadline.
  """

  __slots__ = (
    '_incoming',
    '_outgoing',
    '_receive',
    '_scratch',
    '_send',
    '_sock',
    '_view',
    'armed',
    'closed',
  )

  def __init__(self, sock: socket.socket) -> None:
    sock.setblocking(True)
    self._sock = sock
    self._send, self._receive = sock.send, sock.recv_into
    self._scratch = bytearray(_SCRATCH)
    self._view = memoryview(self._scratch)
    self.armed = 0.0
    self.closed = False
    near = segments.available(sock)
    self._outgoing = segments.Outgoing() if near else None
    self._incoming = segments.Incoming() if near else None

  def fileno(self) -> int:
    return self._sock.fileno()

  def abort(self) -> None:
    """Ends what the owner is waiting for; it then gets `Closed` or an OSError."""
    with contextlib.suppress(OSError):
      self._sock.shutdown(socket.SHUT_RDWR)

  def close(self) -> None:
    self.closed = True
    self._sock.close()
    if self._outgoing is not None:
      self._outgoing.close()

  def reserve(self, lengths: Sequence[int]) -> list[memoryview] | None:
    """Memory from which the next message's first buffers can be sent uncopied.

    Returns:
      a piece for each length, to be sent or released; None if there is none.
    """
    return None if self._outgoing is None else self._outgoing.reserve(lengths)

  def release(self) -> None:
    """Takes back what was reserved and has not been sent."""
    if self._outgoing is not None:
      self._outgoing.release()

  def arm(self, seconds: float) -> None:
    """Lets the kernel end a send or a receive after so many seconds."""
    if seconds == self.armed:
      return
    whole = min(int(seconds), 1 << 30)
    value = _TIMEOUT.pack(whole, max(int(seconds % 1 * 1e6), 1))
    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
    self.armed = seconds

  def arm_until(self, end: float | None) -> None:
    """The same for a deadline; raises Expired if it has passed."""
    left = remaining(end)
    # Without a limit the kernel's only wakes this thread in vain now and then.
    if left is not None and not left / 2 <= self.armed <= left * 1.01 + 1e-3:
      self.arm(left)

  def send(self, kind: int, method: int, pickled: Pickled, end: float | None) -> int:
    """Sends a message; returns its size.

    Raises:
      Expired: `end` (monotonic seconds) passed.
      OSError: the connection is lost; the other side can't have read all of it.
    """
    chunks, buffers = pickled
    if len(chunks) == 1 and not buffers and len(chunks[0]) < _JOINED:
      data = _HEADER.pack(kind, method, 0, len(chunks[0])) + chunks[0]
      total = len(data)
      try:
        sent = self._send(data)
      except BlockingIOError:
        sent = 0
      if sent < total:
        self._gather([memoryview(data)[sent:]], end)
      return total
    lengths = [buffer.nbytes for buffer in buffers]
    table = struct.pack(f'<{len(lengths)}Q', *lengths)
    segment = None
    if self._outgoing is not None and sum(lengths) >= segments.SMALLEST:
      placed = self._outgoing.place(buffers)
      if placed is not None:
        segment, forgotten = placed
        table += segments.TRAILER.pack(segment.number, forgotten, segment.size)
        kind |= _SHARED
        buffers = []
    head = _HEADER.pack(kind, method, len(lengths), sum(map(len, chunks)))
    parts = [head + table, *chunks, *buffers]
    self._gather([memoryview(part).cast('B') for part in parts if len(part)], end)
    if segment is not None and segment.descriptor >= 0:
      self._wait_for(lambda: self._sock.recv(1), end)
      segments.send_descriptor(self._sock, segment)
    return len(head) + len(table) + sum(map(len, chunks)) + sum(lengths)

  def _wait_for(self, act: Callable[[], _T], end: float | None) -> _T:
    """What comes, which must not be nothing."""
    while True:
      self.arm_until(end)
      try:
        found = act()
      except BlockingIOError:
        continue
      if not found:
        raise Closed
      return found

  def _gather(self, parts: list[memoryview], end: float | None) -> None:
    parts.reverse()
    while parts:
      self.arm_until(end)
      try:
        sent = self._sock.sendmsg(parts[: -_GATHERED - 1 : -1])
      except BlockingIOError:
        continue
      _advance(parts, sent)

  def receive(self, end: float | None, idle: bool = False) -> Message | None:
    """The next message; with `idle` None if none has begun within the armed time.

    Raises:
      Expired: `end` (monotonic seconds) passed.
      Closed: the other side has closed the connection.
      Malformed: what came is no message.
      OSError: the connection is lost.
    """
    try:
      have = self._receive(self._scratch)
    except BlockingIOError:
      if idle:
        return None
      have = self._receive_header(0, end)
    if have < _HEADER.size:
      if not have:
        raise Closed
      have = self._receive_header(have, end)
    kind, method, count, body = _HEADER.unpack_from(self._scratch)
    if kind in _KINDS and not count and have == body + _HEADER.size:
      return kind, method, self._view[_HEADER.size : have], (), have
    shared = kind & _SHARED
    kind -= shared
    if kind not in _KINDS or (shared and self._incoming is None):
      raise Malformed
    if body > LARGEST_MESSAGE or count > _MOST_BUFFERS:
      raise Malformed
    front, start, have = self._receive_front(count, body, have, end, bool(shared))
    lengths = struct.unpack_from(f'<{count}Q', front, _HEADER.size)
    size = len(front) + sum(lengths)
    if size > 2 * LARGEST_MESSAGE or have > (len(front) if shared else size):
      raise Malformed
    if shared:
      buffers = self._receive_segment(front, start, lengths, end)
    else:
      buffers = receive_buffers.allocate(lengths)
      early = self._view[len(front) : have]
      self._fill_after(buffers, early, end)
    return kind, method, front[start:], buffers, size

  def _receive_header(self, have: int, end: float | None) -> int:
    while have < _HEADER.size:
      self.arm_until(end)
      with contextlib.suppress(BlockingIOError):
        got = self._receive(self._view[have:])
        if not got:
          raise Closed
        have += got
    return have

  def _receive_front(
    self, count: int, body: int, have: int, end: float | None, shared: bool
  ) -> tuple[memoryview, int, int]:
    """All up to the buffers, where the body begins, and how much has come so far."""
    start = _HEADER.size + 8 * count + (segments.TRAILER.size if shared else 0)
    size = start + body
    if size <= _SCRATCH:
      front = self._view[:size]
    else:
      front = receive_buffers.pool.lease(size)
      front[:have] = self._view[:have]
    if have < size:
      self._fill([front[have:]], end)
    return front, start, max(have, size)

  def _receive_segment(
    self, front: memoryview, start: int, lengths: Sequence[int], end: float | None
  ) -> list[memoryview]:
    assert self._incoming is not None
    trailer = segments.TRAILER.unpack_from(front, start - segments.TRAILER.size)
    number, forgotten, size = trailer
    self._incoming.forget(forgotten)
    if segments.places(lengths)[-1] > size:
      raise Malformed
    if not self._incoming.known(number):
      self._sock.send(b'a')  # asks for it, so that no other read swallows it
      descriptor = self._wait_for(lambda: segments.receive_descriptor(self._sock), end)
      self._incoming.add(number, size, descriptor)
    return self._incoming.take(number, lengths)

  def _fill_after(
    self, buffers: list[memoryview], early: memoryview, end: float | None
  ) -> None:
    """Fills the buffers, first with what came along with the front."""
    missing = []
    for buffer in buffers:
      taken = min(early.nbytes, buffer.nbytes)
      if taken:
        buffer[:taken] = early[:taken]
        early = early[taken:]
      if taken < buffer.nbytes:
        missing.append(buffer[taken:])
    self._fill(missing, end)

  def _fill(self, views: list[memoryview], end: float | None) -> None:
    views.reverse()
    while views:
      self.arm_until(end)
      try:
        if len(views) == 1:
          got = self._sock.recv_into(views[0])
        else:
          got = self._sock.recvmsg_into(views[: -_GATHERED - 1 : -1])[0]
      except BlockingIOError:
        continue
      if not got:
        raise Closed
      _advance(views, got)


def _advance(views: list[memoryview], done: int) -> None:
  """Takes so many bytes off the end, where the next view lies."""
  while done:
    view = views.pop()
    if done < view.nbytes:
      views.append(view[done:])
      return
    done -= view.nbytes
