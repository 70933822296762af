"""Large receive buffers, recycled.

A fresh buffer of 16 MB costs more in page faults than the copy into it. A lease is
given back by the death of the last array (or memoryview) on it, never earlier.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

_POOLED = 128 * 1024
_PACKED = 64 * 1024
_ALIGNMENT = 64
_IDLE_BYTES = 256 * 1024 * 1024


class Pool:
  """Idle buffers by size class, `idle_bytes` of them at most."""

  def __init__(self, idle_bytes: int = _IDLE_BYTES) -> None:
    self._limit = idle_bytes
    self._lock = threading.Lock()
    self._idle: dict[int, list[mmap.mmap]] = {}
    self._idle_total = 0
    self._returned: deque[tuple[int, mmap.mmap]] = deque()

  def lease(self, size: int) -> memoryview:
    """A writable buffer of `size` bytes with undefined contents."""
    if size < _POOLED:
      return memoryview(bytearray(size))
    rounded = size_class(size)
    with self._lock:
      self._collect()
      idle = self._idle.get(rounded)
      slab = idle.pop() if idle else None
      if slab is not None:
        self._idle_total -= rounded
    if slab is None:
      slab = _map(rounded)
    found = slab

    def died() -> None:
      self._returned.append((rounded, found))
      # The garbage collector may call this inside of `lease`: never wait here.
      if self._lock.acquire(blocking=False):
        try:
          self._collect()
        finally:
          self._lock.release()

    return lend(slab, rounded, died)[:size]

  def idle_bytes(self) -> int:
    """How much memory waits to be used again."""
    with self._lock:
      self._collect()
      return self._idle_total

  def _collect(self) -> None:
    while self._returned:
      rounded, slab = self._returned.popleft()
      if self._idle_total + rounded > self._limit:
        self._drop_idle(self._idle_total + rounded - self._limit, rounded)
      if self._idle_total + rounded <= self._limit:
        self._idle.setdefault(rounded, []).append(slab)
        self._idle_total += rounded

  def _drop_idle(self, wanted: int, keep: int) -> None:
    """Frees buffers of other sizes first: those sizes are no longer being sent."""
    for rounded in sorted(self._idle, key=lambda size: size == keep):
      slabs = self._idle[rounded]
      while slabs and wanted > 0 and rounded != keep:
        slabs.pop()
        self._idle_total -= rounded
        wanted -= rounded


def lend(slab: mmap.mmap, size: int, died: Callable[[], None]) -> memoryview:
  """The first `size` bytes; `died` is called once nothing stands on them any more.

  It may be called at any moment, by the garbage collector, and must not wait.
  """
  # Arrays keep the exporter alive, so the exporter's death says that all have gone.
  exporter = (ctypes.c_char * size).from_buffer(slab)
  token = next(_tokens)

  def ended(_: object) -> None:
    _leases.pop(token, None)
    died()

  _leases[token] = weakref.ref(exporter, ended)
  return memoryview(exporter).cast('B')


_tokens = itertools.count()
_leases: dict[int, weakref.ref[ctypes.Array[ctypes.c_char]]] = {}


def allocate(lengths: Sequence[int]) -> list[memoryview]:
  """A buffer for each length; small ones in a row share one, each on its own lines."""
  found: list[memoryview] = []
  for large, group in itertools.groupby(lengths, lambda length: length > _PACKED):
    if large:
      found.extend(pool.lease(length) for length in group)
    else:
      _pack(list(group), found)
  return found


def _pack(lengths: list[int], found: list[memoryview]) -> None:
  places = [0]
  for length in lengths:
    places.append(places[-1] + (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT)
  shared = pool.lease(places[-1])
  found.extend(
    shared[place : place + length]
    for place, length in zip(places, lengths, strict=False)
  )


def _map(size: int) -> mmap.mmap:
  # Private, or a forked child would share the memory with its parent.
  slab = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
  if hasattr(mmap, 'MADV_HUGEPAGE'):
    with contextlib.suppress(OSError):
      slab.madvise(mmap.MADV_HUGEPAGE)
  return slab


def size_class(size: int) -> int:
  """Four classes an octave: at most a quarter is wasted, and equal sizes meet."""
  step = 1 << max(size.bit_length() - 3, 12)
  return (size + step - 1) // step * step


pool = Pool()


def _after_fork() -> None:
  global pool
  pool = Pool()


os.register_at_fork(after_in_child=_after_fork)
