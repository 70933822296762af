"""Processes that are forked off one that has imported everything already.

A new interpreter imports for a second what the launcher has imported to declare its
program, once in every process of it. The nursery is a fork of the launcher that was
taken before the launcher had threads; it has nothing to do but to fork the units it is
asked for, and to say how they ended. Memory is shared, too: what was imported is there
once, until somebody writes to it.

Requests and replies go over a pair of sockets. When the launcher's end of it closes,
even by SIGKILL, the nursery ends; its units know from their standard inputs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import BinaryIO

from callsheet.launch.nursery_process import SIGNALS, kill_group, tend

# These are read when they are used, not by an import: a unit may have others.
LATE = frozenset(
  {
    'CUDA_VISIBLE_DEVICES',
    'JAX_PLATFORMS',
    'NPROC',
    'PYTHONPATH',
    'PYTHONUNBUFFERED',
    'TF_CPP_MIN_LOG_LEVEL',
    'XLA_FLAGS',
  }
)


@dataclass(frozen=True)
class Forked:
  """A forked process: as much of `subprocess.Popen` as a crew needs."""

  stdin: BinaryIO
  stdout: BinaryIO
  born: Future[int] = field(default_factory=Future)
  ended: Future[int] = field(default_factory=Future)

  @property
  def pid(self) -> int:
    return self.born.result()

  @property
  def returncode(self) -> int | None:
    return self.ended.result() if self.ended.done() else None

  def wait(self) -> int:
    return self.ended.result()


def can_fork() -> bool:
  """Whether a fork of this process is sound: it has one thread and no JAX backend."""
  try:
    threads = len(os.listdir('/proc/self/task'))
    os.close(os.pidfd_open(os.getpid()))
  except (AttributeError, OSError):  # Another system than Linux, or an old one.
    return False
  bridge = sys.modules.get('jax._src.xla_bridge')  # There is no public way to ask.
  initialized = getattr(bridge, 'backends_are_initialized', lambda: bridge is not None)
  return threads == 1 and not initialized()


class Nursery:
  """The launcher's side of it; see `can_fork` first."""

  def __init__(self) -> None:
    self._environment = dict(os.environ)
    self._units: list[Forked] = []
    self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
      self._pid = os.fork()
      if not self._pid:
        tend(self._socket, theirs)
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    theirs.close()
    self._thread = threading.Thread(target=self._listen, daemon=True, name='nursery')
    self._thread.start()

  def suits(self, environment: Mapping[str, str]) -> bool:
    """Whether imports in this environment would have been the launcher's."""
    changed = environment.items() ^ self._environment.items()
    return {name for name, _ in changed} <= LATE

  def fork(self, environment: Mapping[str, str], events: int) -> Forked:
    """Starts a process that runs `worker.live`.

    Args:
      environment: its own, one that `suits`.
      events: where it writes its events; left open.

    Raises:
      OSError: the nursery is gone, or the system has no place for a process.
    """
    stdin, stdout = os.pipe(), os.pipe()
    unit = Forked(os.fdopen(stdin[1], 'wb'), os.fdopen(stdout[0], 'rb'))
    number = len(self._units)
    self._units.append(unit)
    try:
      files = (stdin[0], stdout[1], events)
      socket.send_fds(self._socket, [pickle.dumps(number)], files)
    finally:
      os.close(stdin[0])
      os.close(stdout[1])
    unit.born.result()
    with contextlib.suppress(BrokenPipeError):  # It is gone already.
      unit.stdin.write(pickle.dumps(dict(environment)))
      unit.stdin.flush()
    return unit

  def close(self) -> None:
    """Ends the nursery, after its units."""
    self._socket.shutdown(socket.SHUT_RDWR)
    self._thread.join()
    self._socket.close()
    os.waitpid(self._pid, 0)
    for unit in self._units:
      for stream in (unit.stdin, unit.stdout):
        with contextlib.suppress(OSError):
          stream.close()

  def _listen(self) -> None:
    with contextlib.suppress(ConnectionError):
      while message := self._socket.recv(1024):
        number, pid, code = pickle.loads(message)
        unit = self._units[number]
        if not pid:
          unit.born.set_exception(OSError(code, os.strerror(code)))
        elif code is None:
          unit.born.set_result(pid)
        else:
          unit.ended.set_result(code)
    # Without the nursery nobody learns how its units end: they end here.
    for unit in self._units:
      if not unit.born.done():
        unit.born.set_exception(ConnectionResetError('the nursery is gone'))
      elif not unit.born.exception() and not unit.ended.done():
        kill_group(unit.pid)
        unit.ended.set_result(-signal.SIGKILL)
