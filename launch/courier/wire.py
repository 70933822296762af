"""Messages on an authenticated connection.

header   magic 2, kind u8, length of the name u8, number of buffers u32, body u64
table    the length of each buffer, u64
name     the method, UTF-8
body     a pickle
buffers  what the pickle refers to, one after the other

A connection carries one call at a time, so nothing may follow a message until it has
been answered: a small message is one system call on either side.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from callsheet.launch.courier import buffers as buffer_pool
from callsheet.launch.courier.deadlines import remaining
from callsheet.launch.courier.pickling import Chunk, Pickled

CALL, RESULT, ERROR, WELCOME = 1, 2, 3, 4
LARGEST_MESSAGE = 1 << 34

_MAGIC = b'\xca\x11'
_HEADER = struct.Struct('<2sBBIQ')
_TIMEOUT = struct.Struct('@ll')
_SCRATCH = 32 * 1024
_JOINED = 64 * 1024
_MOST_BUFFERS = 1 << 20
_GATHERED = 512  # at a time; the kernel takes 1024
_PACKED = 64 * 1024
_ALIGNMENT = 64


class Malformed(Exception):
  """What came is no message: the connection can't be used any more."""


class Closed(Exception):
  """The other side has closed the connection, or has died."""


class TooLarge(Exception):
  """The message is larger than the courier carries."""


class Message(NamedTuple):
  """A received message; `body` is only valid until the next one is received."""

  kind: int
  name: bytes
  body: memoryview
  buffers: list[memoryview]
  size: int


def size_of(pickled: Pickled) -> int:
  """How many bytes body and buffers have.

  Raises:
    TooLarge: more than the courier carries.
  """
  chunks, buffers = pickled
  size = sum(map(len, chunks)) + sum(buffer.nbytes for buffer in buffers)
  if size > LARGEST_MESSAGE or len(buffers) > _MOST_BUFFERS:
    raise TooLarge(
      f'{size:,} bytes in {len(buffers):,} buffers; a message carries at most '
      f'{LARGEST_MESSAGE:,} bytes in {_MOST_BUFFERS:,}'
    )
  return size


class Channel:
  """One end of a connection.

  Its owner alone sends, receives and closes; other threads may only `abort` it.
  """

  __slots__ = ('_armed', '_scratch', '_sock', '_view', 'closed')

  def __init__(self, sock: socket.socket) -> None:
    sock.setblocking(True)
    self._sock = sock
    self._scratch = bytearray(_SCRATCH)
    self._view = memoryview(self._scratch)
    self._armed = 0.0
    self.closed = False

  def fileno(self) -> int:
    return self._sock.fileno()

  def abort(self) -> None:
    """Ends what the owner is waiting for; it then gets `Closed` or an OSError."""
    with contextlib.suppress(OSError):
      self._sock.shutdown(socket.SHUT_RDWR)

  def close(self) -> None:
    self.closed = True
    self._sock.close()

  def arm(self, seconds: float) -> None:
    """Lets the kernel end a send or a receive after so many seconds."""
    if seconds == self._armed:
      return
    whole = int(seconds)
    value = _TIMEOUT.pack(whole, max(int((seconds - whole) * 1e6), 1))
    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
    self._armed = seconds

  def _arm_until(self, end: float | None) -> None:
    left = remaining(end)
    # Without a limit the kernel's only wakes this thread in vain now and then.
    if left is not None and not left / 2 <= self._armed <= left * 1.01 + 1e-3:
      self.arm(left)

  def send(self, kind: int, name: bytes, pickled: Pickled, end: float | None) -> int:
    """Sends a message; returns its size.

    Raises:
      Expired: `end` (monotonic seconds) passed.
      OSError: the connection is lost; the other side can't have read all of it.
    """
    chunks, buffers = pickled
    body = sum(map(len, chunks))
    head = _HEADER.pack(_MAGIC, kind, len(name), len(buffers), body)
    if not buffers and body < _JOINED:
      data = b''.join((head, name, *chunks))
      total = len(data)
      self._arm_until(end)
      try:
        sent = self._sock.send(data)
      except BlockingIOError:
        sent = 0
      if sent < total:
        self._gather([memoryview(data)[sent:]], end)
      return total
    lengths = [buffer.nbytes for buffer in buffers]
    table = struct.pack(f'<{len(lengths)}Q', *lengths)
    parts = [head + table + name, *chunks, *buffers]
    self._gather([memoryview(part) for part in parts if len(part)], end)
    return len(parts[0]) + body + sum(lengths)

  def _gather(self, parts: list[memoryview], end: float | None) -> None:
    parts.reverse()
    while parts:
      self._arm_until(end)
      try:
        sent = self._sock.sendmsg(parts[: -_GATHERED - 1 : -1])
      except BlockingIOError:
        continue
      while sent:
        part = parts.pop()
        if sent < part.nbytes:
          parts.append(part[sent:])
          break
        sent -= part.nbytes

  def receive(self, end: float | None, idle: bool = False) -> Message | None:
    """The next message; with `idle` None if none has begun within the armed time.

    Raises:
      Expired: `end` (monotonic seconds) passed.
      Closed: the other side has closed the connection.
      Malformed: what came is no message.
      OSError: the connection is lost.
    """
    have = 0
    while have < _HEADER.size:
      if not idle:
        self._arm_until(end)
      try:
        got = self._sock.recv_into(self._view[have:] if have else self._scratch)
      except BlockingIOError:
        if idle and not have:
          return None
        continue
      if not got:
        raise Closed
      have += got
    magic, kind, name_size, count, body_size = _HEADER.unpack_from(self._scratch)
    if magic != _MAGIC or body_size > LARGEST_MESSAGE or count > _MOST_BUFFERS:
      raise Malformed
    start = _HEADER.size + name_size
    size = start + body_size
    if not count and have == size:
      name = bytes(self._view[_HEADER.size : start])
      return Message(kind, name, self._view[start:have], [], have)
    return self._receive_rest(kind, name_size, count, body_size, have, end)

  def _receive_rest(
    self,
    kind: int,
    name_size: int,
    count: int,
    body_size: int,
    have: int,
    end: float | None,
  ) -> Message:
    name_at = _HEADER.size + 8 * count
    body_at = name_at + name_size
    front_size = body_at + body_size
    front = self._view
    if front_size > len(front):
      front = buffer_pool.pool.lease(front_size)
      front[:have] = self._view[:have]
    if have < front_size:
      self._fill([front[have:front_size]], end)
      have = front_size
    lengths = struct.unpack_from(f'<{count}Q', front, _HEADER.size)
    size = front_size + sum(lengths)
    if size > 2 * LARGEST_MESSAGE or have > size:
      raise Malformed
    buffers = _allocate(lengths)
    self._fill_after(buffers, front[front_size:have], end)
    name = bytes(front[name_at:body_at])
    return Message(kind, name, front[body_at:front_size], buffers, size)

  def _fill_after(
    self, buffers: list[memoryview], early: memoryview, end: float | None
  ) -> None:
    """Fills the buffers, first with what came along with the front."""
    missing = []
    for buffer in buffers:
      if early.nbytes:
        taken = min(early.nbytes, buffer.nbytes)
        buffer[:taken] = early[:taken]
        early = early[taken:]
        buffer = buffer[taken:]
      if buffer.nbytes:
        missing.append(buffer)
    self._fill(missing, end)

  def _fill(self, views: list[memoryview], end: float | None) -> None:
    views.reverse()
    while views:
      self._arm_until(end)
      try:
        if len(views) == 1:
          got = self._sock.recv_into(views[0])
        else:
          got = self._sock.recvmsg_into(views[: -_GATHERED - 1 : -1])[0]
      except BlockingIOError:
        continue
      if not got:
        raise Closed
      while got:
        view = views.pop()
        if got < view.nbytes:
          views.append(view[got:])
          break
        got -= view.nbytes


def _allocate(lengths: Sequence[int]) -> list[memoryview]:
  """A buffer for each length; small ones in a row share one, each on its own lines."""
  found: list[memoryview] = []
  for large, group in itertools.groupby(lengths, lambda length: length > _PACKED):
    if large:
      found.extend(buffer_pool.pool.lease(length) for length in group)
    else:
      _pack(list(group), found)
  return found


def _pack(lengths: list[int], found: list[memoryview]) -> None:
  places = [0]
  for length in lengths:
    places.append(places[-1] + (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)
  shared = buffer_pool.pool.lease(places[-1])
  found.extend(
    shared[place : place + length]
    for place, length in zip(places, lengths, strict=False)
  )


__all__ = [
  'CALL',
  'ERROR',
  'LARGEST_MESSAGE',
  'RESULT',
  'WELCOME',
  'Channel',
  'Chunk',
  'Closed',
  'Malformed',
  'Message',
  'TooLarge',
  'size_of',
]
