"""Large messages on one host, through memory that both sides map: one copy, not two.

A segment belongs to one direction of one unix connection. The sender copies the buffers
into it and names it in the message; the receiver's arrays stand on it directly. Its
first byte says that it is lent; the receiver clears it when the last of those arrays
has died, and only then the sender writes to it again. The first time, its file
descriptor follows the message. A forked child shares what its parent had received.
What a handler makes in a segment that it reserved is sent from there, uncopied.
"""

from __future__ import annotations

import array
import itertools
import mmap
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from callsheet.buffers import lend, size_class

SMALLEST = 256 * 1024
TRAILER = struct.Struct('<IIQ')
"""Behind the table of lengths: the segment, one to forget (or 0), the former's size."""

_START = 4096
_ALIGNMENT = 64
_ROOM_BEHIND = 64 * 1024  # of what is reserved, for smaller buffers of the message
_MOST = 4  # of a connection, in one direction
_MOST_BYTES = 512 * 1024 * 1024  # of a process, in all that it sends through
_POPULATE = getattr(mmap, 'MAP_POPULATE', 0)

_ids = itertools.count(1)
_lock = threading.Lock()
_bytes = 0
_forks = 0


@dataclass
class Segment:
  """A piece of shared memory; `descriptor` is open until the receiver has it."""

  number: int
  size: int
  memory: mmap.mmap
  descriptor: int = -1

  def close(self) -> None:
    if self.descriptor >= 0:
      os.close(self.descriptor)
      self.descriptor = -1


def places(lengths: Sequence[int]) -> list[int]:
  """Where each buffer begins, and last where the segment may end."""
  found = [_START]
  for length in lengths:
    found.append(found[-1] + (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)
  return found


class Outgoing:
  """The segments that one end of a connection sends through."""

  def __init__(self) -> None:
    self._segments: list[Segment] = []
    self._reserved: tuple[Segment, list[int]] | None = None
    self._forgotten: list[int] = []  # of which the receiver has not been told

  def reserve(self, lengths: Sequence[int]) -> list[memoryview] | None:
    """Room in a segment for the first buffers of the next message.

    Returns:
      a piece for each length; None if there is no memory, or something is reserved.
    """
    if self._reserved is not None:
      return None
    where = places(lengths)
    segment = self._find(where[-1] + _ROOM_BEHIND)
    if segment is None:
      return None
    segment.memory[0] = 1
    self._reserved = segment, list(lengths)
    memory = memoryview(segment.memory)
    return [
      memory[start : start + length]
      for start, length in zip(where, lengths, strict=False)
    ]

  def release(self) -> None:
    """Gives up what was reserved and has not been sent."""
    if self._reserved is not None:
      self._reserved[0].memory[0] = 0
      self._reserved = None

  def place(self, buffers: Sequence[memoryview]) -> tuple[Segment, int] | None:
    """Copies the buffers into a free segment, but for those that lie there already.

    Returns:
      The segment and the number of one that the receiver shall forget (0 for none), or
      None where there is no memory to be had: then they go through the socket.
    """
    where = places([buffer.nbytes for buffer in buffers])
    segment, there = self._take_reserved(buffers, where)
    if segment is None:
      segment = self._find(where[-1])
      if segment is None:
        return None
      segment.memory[0] = 1
    with memoryview(segment.memory) as memory:
      for start, buffer in list(zip(where, buffers, strict=False))[there:]:
        with memory[start : start + buffer.nbytes] as target:
          _copy(target, buffer)
    return segment, self._forgotten.pop(0) if self._forgotten else 0

  def _take_reserved(
    self, buffers: Sequence[memoryview], where: Sequence[int]
  ) -> tuple[Segment | None, int]:
    """What was reserved, if the message begins with just what was made there."""
    if self._reserved is None:
      return None, 0
    segment, lengths = self._reserved
    count = len(lengths)
    made = buffers[:count]
    if where[-1] > segment.size or [buffer.nbytes for buffer in made] != lengths:
      return None, 0
    base = _address(memoryview(segment.memory))
    if any(_address(b) != base + start for start, b in zip(where, made, strict=False)):
      return None, 0
    self._reserved = None
    return segment, count

  def _find(self, size: int) -> Segment | None:
    """A free segment of so many bytes; for want of room another one is forgotten."""
    fitting = [s for s in self._segments if s.size >= size and not s.memory[0]]
    if fitting:
      return min(fitting, key=lambda s: s.size)
    if len(self._segments) >= _MOST:
      self._forget()
    made = _make(size_class(size))
    if made is not None:
      self._segments.append(made)
    return made

  def _forget(self) -> None:
    """Drops one, a free one if there is; arrays over there keep the memory alive."""
    oldest = min(self._segments, key=lambda s: (bool(s.memory[0]), s.number))
    self._segments.remove(oldest)
    self._forgotten.append(oldest.number)
    _count(-oldest.size)
    oldest.close()

  def close(self) -> None:
    """Gives all of it up; the receiver's arrays keep what they need."""
    while self._segments:
      self._forget()


class Incoming:
  """The segments that the other end sends through."""

  def __init__(self) -> None:
    self._memory: dict[int, mmap.mmap] = {}

  def known(self, number: int) -> bool:
    return number in self._memory

  def add(self, number: int, size: int, descriptor: int) -> None:
    """Maps a new one; the descriptor is closed."""
    try:
      flags = mmap.MAP_SHARED | _POPULATE
      self._memory[number] = mmap.mmap(descriptor, size, flags=flags)
    finally:
      os.close(descriptor)

  def forget(self, number: int) -> None:
    self._memory.pop(number, None)

  def take(self, number: int, lengths: Sequence[int]) -> list[memoryview]:
    """The buffers of a message; the sender gets them back when they have died."""
    memory, where, forks = self._memory[number], places(lengths), _forks

    def died() -> None:
      # Once forked, nobody knows when the last of the arrays dies: never lent again.
      if forks == _forks:
        memory[0] = 0

    lent = lend(memory, len(memory), died)
    return [
      lent[start : start + length]
      for start, length in zip(where, lengths, strict=False)
    ]


def send_descriptor(sock: socket.socket, segment: Segment) -> None:
  """Lets the receiver have the segment, once it has asked."""
  ancillary = array.array('i', [segment.descriptor])
  sock.sendmsg([b'd'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ancillary)])
  segment.close()


def receive_descriptor(sock: socket.socket) -> int:
  """The descriptor, or 0 if the connection has ended without one."""
  found = array.array('i', [0])
  _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(found.itemsize))
  for level, kind, data in ancillary:
    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
      found = array.array('i', data[: found.itemsize])
  return found[0]


def _make(size: int) -> Segment | None:
  global _bytes
  with _lock:
    if _bytes + size > _MOST_BYTES:
      return None
    _bytes += size
  descriptor = -1
  try:
    descriptor = os.memfd_create('callsheet')
    os.posix_fallocate(descriptor, 0, size)
    flags = mmap.MAP_SHARED | _POPULATE
    memory = mmap.mmap(descriptor, size, flags=flags)
  except OSError:
    if descriptor >= 0:
      os.close(descriptor)
    _count(-size)
    return None
  return Segment(next(_ids), size, memory, descriptor)


def _count(size: int) -> None:
  global _bytes
  with _lock:
    _bytes = max(_bytes + size, 0)


def _copy(target: memoryview, source: memoryview) -> None:
  numpy = sys.modules.get('numpy')
  if numpy is None:
    target[:] = source
  else:  # the same, while other threads run
    numpy.copyto(numpy.frombuffer(target, 'u1'), numpy.frombuffer(source, 'u1'))


def _address(buffer: memoryview) -> int:
  numpy = sys.modules['numpy']  # whoever reserves has arrays
  address: int = numpy.frombuffer(buffer, 'u1').__array_interface__['data'][0]
  return address


def available(sock: socket.socket) -> bool:
  """Whether both ends are on this host and the system has such memory."""
  return sock.family == socket.AF_UNIX and hasattr(os, 'memfd_create')


def _before_fork() -> None:
  global _forks
  _forks += 1


def _after_fork() -> None:
  global _lock, _bytes
  _lock, _bytes = threading.Lock(), 0


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
