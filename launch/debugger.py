"""pdb for nodes: after an exception, and at breakpoints in processes of their own.

Such a process has no standard input; it opens the launcher's, terminal or not, for as
long as somebody debugs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pdb
import sys
import threading
import traceback
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import IO, TextIO

from callsheet.launch import courier


@dataclass(frozen=True)
class Debugger:
  """Where somebody debugs.

  Attributes:
    place: path of a terminal or a pipe to read from; '' for this process's own.
    lock: path of a file; who holds its lock debugs, the others wait.
  """

  place: str = ''
  lock: str = ''

  @classmethod
  def of_launcher(cls, folder: str) -> Debugger:
    """For nodes in other processes of this machine, which share this folder."""
    try:
      place = os.ttyname(0)
    except OSError:
      place = f'/proc/{os.getpid()}/fd/0'
    return cls(place, os.path.join(folder, 'debugger'))

  def post_mortem(self, node: str, error: BaseException) -> None:
    """Opens pdb where the exception was raised; returns once it is left.

    From then on no call of this process times out.
    """
    courier.suspend_deadlines(True)
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    debugger = self._open()
    debugger.message(
      f'node {node!r}: {last}\npdb, where it was raised; q leaves the node to fail'
    )
    debugger.reset()
    debugger.interaction(None, error.__traceback__)

  def hook(self, *args: object, **kwargs: object) -> object:
    """In the place of `sys.breakpointhook`, in a process of its own."""
    courier.suspend_deadlines(True)
    if 'PYTHONBREAKPOINT' in os.environ:
      return sys.__breakpointhook__(*args, **kwargs)
    self._open().set_trace(sys._getframe(1))
    return None

  def _open(self) -> pdb.Pdb:
    if not self.place:
      return _InTurn(_own)
    said, shown = _open(self.place, os.O_RDONLY), sys.stdout
    if said.isatty():
      shown = _open(self.place, os.O_WRONLY)
    return _InTurn(_Locked(self.lock), said, shown)


class _InTurn(pdb.Pdb):
  """One at a time asks for what to do."""

  def __init__(
    self,
    turn: contextlib.AbstractContextManager[object],
    said: IO[str] | None = None,
    shown: IO[str] | None = None,
  ) -> None:
    super().__init__(stdin=said, stdout=shown)
    self._turn = turn

  def interaction(
    self, frame: FrameType | None, traceback: TracebackType | None
  ) -> None:
    """See `pdb.Pdb`."""
    with self._turn:
      super().interaction(frame, traceback)


class _Locked(contextlib.AbstractContextManager[None]):
  """Held by one process at a time."""

  def __init__(self, path: str) -> None:
    self._file = _open(path, os.O_WRONLY | os.O_CREAT)

  def __enter__(self) -> None:
    fcntl.flock(self._file, fcntl.LOCK_EX)

  def __exit__(self, *error: object) -> None:
    fcntl.flock(self._file, fcntl.LOCK_UN)


def _open(path: str, flags: int) -> TextIO:
  """A file that is open for as long as somebody has it."""
  file = os.open(path, flags | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
  return os.fdopen(file, 'r' if flags == os.O_RDONLY else 'w')


_own = threading.RLock()
