"""Workers that are started by a command of this machine: ssh, srun, ip netns exec."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.ticket import Ticket

MODULE = 'callsheet.launch.remote.worker'
_PATIENCE = 0.5  # seconds that a command may take to end by itself


def worker_command(python: str, path: Sequence[str] = ()) -> list[str]:
  """What starts a worker on its host; `path` is where it finds callsheet."""
  where = [f'PYTHONPATH={os.pathsep.join(path)}'] if path else []
  return ['env', *where, 'PYTHONUNBUFFERED=1', python, '-m', MODULE]


class Commands:
  """Follows commands that run workers; each has its ticket from its standard input.

  Args:
    logs: get what they print.
    environment: of the commands; this process's by default.
    ending: the signal that ends a command; if it is not SIGKILL, the command may first
      end by itself, for its worker was dismissed, and SIGKILL comes last.
  """

  def __init__(
    self,
    logs: Logs,
    environment: Mapping[str, str] | None = None,
    ending: signal.Signals = signal.SIGKILL,
  ) -> None:
    self._logs, self._environment, self._ending = logs, environment, ending
    self._lock = threading.Lock()
    self._processes: dict[str, subprocess.Popen[bytes]] = {}
    self._threads: list[threading.Thread] = []

  def start(
    self,
    unit: str,
    command: Sequence[str],
    ticket: Ticket,
    ended: Callable[[str], None],
    explain: Callable[[int, str], str] = lambda code, line: how_it_went(code, line),
  ) -> None:
    """Runs a command.

    Args:
      unit: what its worker will be.
      command: with its arguments.
      ticket: the worker's.
      ended: called with the reason once the command is gone; empty if it was in order.
      explain: the reason for an exit code and the last line that was printed.
    """
    self.kill(unit)  # Of a life that was given up.
    process = subprocess.Popen(
      command,
      env=self._environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    with self._lock:
      self._processes[unit] = process
    self._logs.note(unit, f'started as process {process.pid}: {command[0]}')
    copying = self._thread(self._logs.copy, unit, process.stdout)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # It is gone already; `ended` says how.
      process.stdin.write(f'{ticket.dumps()}\n'.encode())
      process.stdin.flush()

    def follow() -> None:
      code = process.wait()
      _close(process.stdin)
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # What it started goes with it.
      copying.join(1.0)
      ended(explain(code, self._logs.last_line(unit)))

    self._thread(follow)

  def runs(self, unit: str) -> bool:
    """Whether the unit's command is still there."""
    process = self._processes.get(unit)
    return process is not None and process.poll() is None

  def kill(self, unit: str) -> None:
    """Kills the unit's command; its worker notices that by its standard input."""
    process = self._processes.get(unit)
    if process is None or process.poll() is not None:
      return
    if self._ending == signal.SIGKILL:
      _signal(process, signal.SIGKILL)
    else:
      self._thread(_insist, process, self._ending)

  def close(self) -> None:
    """Ends every command that still runs."""
    left = [p for p in self._processes.values() if p.poll() is None]
    for process in left:
      _signal(process, self._ending)
    for process in left:
      _insist(process, signal.SIGKILL)
      process.wait()
    for thread in self._threads:
      thread.join(2.0)
    for process in self._processes.values():
      for stream in (process.stdin, process.stdout):
        _close(stream)

  def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True, name='commands')
    thread.start()
    self._threads.append(thread)
    return thread


def _close(stream: IO[bytes] | None) -> None:
  """Gives up what a process that has ended did not read, too."""
  with contextlib.suppress(OSError):
    if stream is not None:
      stream.close()


def _insist(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> None:
  """Sends one signal after the other, SIGKILL last, until the process has ended."""
  for number in (*numbers, signal.SIGKILL):
    try:
      process.wait(_PATIENCE)
      return
    except subprocess.TimeoutExpired:
      _signal(process, number)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, number)


def how_it_went(code: int, line: str) -> str:
  """How a command went; empty if in order."""
  if code == 0:
    return ''
  if code < 0:
    try:
      return f'its process was killed by {signal.Signals(-code).name}'
    except ValueError:
      return f'its process was killed by signal {-code}'
  said = f', saying: {line}' if line else ''
  return f'its process exited with code {code}{said}'
