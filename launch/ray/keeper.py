"""The actor that keeps a unit's worker: it runs in Ray's process on the unit's host.

It is sent there by value, for Ray's processes need not find callsheet; so it uses
nothing but the standard library. The worker is a child of its own: Ray's threads stay
out of it, and it may end however it likes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

_LINES = 1000  # that wait to be fetched; then the worker has to wait, too
_POLL = 10.0  # seconds that a question for output waits at most


class Keeper:
  """Starts a worker, and hands on what it prints; then the next, if one is due."""

  _process: subprocess.Popen[bytes] | None = None
  _ticket = ''

  def start(self, command: Sequence[str], ticket: str, folder: str) -> tuple[int, str]:
    """Starts the worker, once for each ticket: whoever got no answer may ask again.

    Args:
      command: with its arguments; an empty word stands for this interpreter.
      ticket: a line for its standard input, which stays open as long as this lives.
      folder: where it works, if that is here.

    Returns:
      The number of its process, and this host's name.
    """
    if self._process is not None and ticket == self._ticket:
      return self._process.pid, socket.gethostname()
    process = subprocess.Popen(
      [word or sys.executable for word in command],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      cwd=folder if os.path.isdir(folder) else None,
      start_new_session=True,
    )
    self._process, self._ticket = process, ticket
    self._output: queue.Queue[bytes | None] = queue.Queue(_LINES)
    threading.Thread(target=self._follow, args=(process,), daemon=True).start()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # It is gone already; `code` says how.
      process.stdin.write(f'{ticket}\n'.encode())
      process.stdin.flush()
    return process.pid, socket.gethostname()

  def lines(self) -> list[bytes] | None:
    """What was printed since; waits a while for it. None after the last of it."""
    found: list[bytes] = []
    try:
      line = self._output.get(timeout=_POLL)
      while line is not None:
        found.append(line)
        line = self._output.get_nowait()
    except queue.Empty:
      return found
    if found:
      self._output.put(None)
    return found or None

  def code(self) -> int:
    """The worker's exit code, after the last of its output."""
    assert self._process is not None
    return self._process.wait()

  def kill(self) -> None:
    """Kills the worker; `code` says so."""
    if self._process is not None and self._process.returncode is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self._process.pid, signal.SIGKILL)

  def _follow(self, process: subprocess.Popen[bytes]) -> None:
    copying = threading.Thread(target=self._copy, args=(process.stdout,), daemon=True)
    copying.start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)  # What it started goes with it.
    process.wait()
    copying.join(1.0)
    self._output.put(None)

  def _copy(self, output: BinaryIO) -> None:
    for line in output:
      self._output.put(line)
