"""Starts workers by the process in which Launchpad runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping

from callsheet.launch.devices import process_environment, unit_resources
from callsheet.launch.launchpad.groups import labels
from callsheet.launch.launchpad.lifeline import Lifeline
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.ticket import Ticket
from callsheet.programs.plan import Plan

_MODULE = 'callsheet.launch.launchpad.launcher'
# A line as Launchpad decorates it: a colour, the node's title, its text, no colour.
_DECORATED = re.compile(rb'^\x1b\[1;\d+m\[([^\]]+)\] (.*?)(?:\x1b\[0;0m)?\r?\n?$')
_CLOSE = 8.0  # seconds that Launchpad's process may take to end


class LaunchpadEngine:
  """See `Engine`.

  Args:
    plan: what runs; its units' first lives are launched together.
    launch_type: Launchpad's name of it.
    terminal: likewise.
    logs: get what the units print.
    given: variables of each unit that has accelerators; see `accelerators.allot`.
  """

  def __init__(
    self,
    plan: Plan,
    launch_type: str,
    terminal: str,
    logs: Logs,
    given: Mapping[str, Mapping[str, str]],
  ) -> None:
    self._plan, self._logs, self._given = plan, logs, given
    self._folder = tempfile.mkdtemp(prefix='callsheet-')
    self._launch_type, self._terminal = launch_type, terminal
    self._labels = labels(plan)
    self._due: set[str] = set()
    self._path = os.path.join(self._folder, 'lifeline')
    self._lifeline = Lifeline(self._path, self._describe)
    self._process: subprocess.Popen[bytes] | None = None
    self._threads: list[threading.Thread] = []

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """See `Engine.start`."""
    environment = {**ticket.environment, **self._given.get(unit, {})}
    ticket = dataclasses.replace(ticket, environment=environment)
    self._lifeline.expect(unit, ticket, ended)
    if self._process is not None:
      self._launch([unit])
      return
    self._due.add(unit)
    if self._due == set(self._labels):
      self._process = self._open()
      self._launch(self._labels)

  def kill(self, unit: str) -> None:
    """See `Engine.kill`."""
    self._lifeline.kill(unit)

  def note(self, unit: str, text: str) -> None:
    """See `Engine.note`."""
    self._logs.note(unit, text)

  def log(self, unit: str) -> str:
    """See `Engine.log`."""
    if self._terminal == 'output_to_files':
      return os.path.join(os.path.dirname(self._logs.path(unit)), unit)
    return self._logs.path(unit)

  def close(self, failed: bool) -> None:
    """See `Engine.close`."""
    self._lifeline.close()
    if self._process is not None:
      assert self._process.stdin is not None
      with contextlib.suppress(OSError):
        self._process.stdin.close()
      with contextlib.suppress(subprocess.TimeoutExpired):
        self._process.wait(_CLOSE)
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self._process.pid, signal.SIGKILL)
      self._process.wait()
    for thread in self._threads:
      thread.join(5.0)
    shutil.rmtree(self._folder, ignore_errors=True)
    self._logs.close(failed)

  def _open(self) -> subprocess.Popen[bytes]:
    # Launchpad decorates lines with sed, which keeps them back unless a terminal reads.
    terminal, other = os.openpty()
    try:
      process = subprocess.Popen(
        [sys.executable, '-m', _MODULE],
        stdin=subprocess.PIPE,
        stdout=other,
        stderr=other,
        env=self._environment(),
        start_new_session=True,
      )
    except BaseException:
      os.close(terminal)
      raise
    finally:
      os.close(other)
    copying = self._thread(self._copy, terminal)
    self._thread(self._follow, process, copying)
    return process

  def _environment(self) -> dict[str, str]:
    environment = dict(os.environ)
    if self._launch_type == 'local_mt':
      everything = tuple(node.resources for node in self._plan.nodes)
      environment = process_environment(unit_resources(everything), os.environ)
    path = [os.path.abspath(entry) for entry in sys.path]
    environment['PYTHONPATH'] = os.pathsep.join(path)
    environment['PYTHONUNBUFFERED'] = '1'
    environment['LAUNCHPAD_LOGGING_DIR'] = os.path.dirname(self._logs.path('any'))
    return environment

  def _launch(self, units: Iterable[str]) -> None:
    asked = {
      'program': self._plan.name,
      'units': {unit: self._labels[unit] for unit in units},
      'lifeline': self._path,
      'launch_type': self._launch_type,
      'terminal': self._terminal,
    }
    assert self._process is not None and self._process.stdin is not None
    with contextlib.suppress(OSError):  # It is gone already; `_follow` says how.
      self._process.stdin.write(f'{json.dumps(asked)}\n'.encode())
      self._process.stdin.flush()
    if self._process.poll() is not None:
      self._gone(self._process.returncode)

  def _follow(
    self, process: subprocess.Popen[bytes], copying: threading.Thread
  ) -> None:
    code = process.wait()
    copying.join(1.0)
    self._gone(code)

  def _gone(self, code: int) -> None:
    said = self._logs.last_line(self._plan.name)
    reason = f"Launchpad's own process has ended with code {code}"
    self._lifeline.give_up(self._labels, f'{reason}, saying: {said}')

  def _copy(self, terminal: int) -> None:
    """Sorts what comes by who said it; Launchpad's own words go under the program."""
    with open(terminal, 'rb') as lines, contextlib.suppress(OSError):
      # The end of a terminal that nobody writes to any more is an error.
      for line in lines:
        found = _DECORATED.match(line)
        if found is not None and (unit := found[1].decode()) in self._labels:
          self._logs.take(unit, found[2] + b'\n')
        else:
          self._logs.take(self._plan.name, line.replace(b'\r\n', b'\n'))

  def _describe(self, unit: str) -> str:
    said = self._logs.last_line(unit)
    return f'its process has ended{f", saying: {said}" if said else ""}'

  def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True, name='launchpad')
    thread.start()
    self._threads.append(thread)
    return thread
