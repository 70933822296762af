"""The supervisor as a node of a Launchpad program. Imports Launchpad."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import launchpad as lp

from callsheet.launch.launching import start
from callsheet.launch.launchpad.lifeline import Lifeline
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.ticket import Ticket
from callsheet.programs.plan import Plan

_LOOK = 0.2  # seconds between two looks whether Launchpad wants to stop


def supervise(plan: bytes, path: str, deadline: float | None) -> None:
  """Follows the program to its end, and ends Launchpad's with it.

  Args:
    plan: pickled.
    path: of the lifeline.
    deadline: of a call that names none.

  Raises:
    NodeFailed: a node failed that has no restart left.
  """
  try:
    with start(pickle.loads(plan), Joined(path, deadline)) as running:
      while not lp.wait_for_stop(0.0) and not running.wait(_LOOK):
        pass
  finally:
    if not lp.wait_for_stop(0.0):
      lp.stop()


@dataclass(frozen=True)
class Joined:
  """A backend whose workers somebody else has started, and only restarts are ours."""

  path: str
  deadline: float | None
  name: str = 'launchpad'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`."""
    engine = _JoinedEngine(self.path, say)
    return RemoteCrew(plan, engine, '127.0.0.1', deadline=self.deadline, arrival=120.0)


class _JoinedEngine:
  """See `Engine`."""

  def __init__(self, path: str, say: Callable[[str, str], None]) -> None:
    self._path, self._say = path, say
    self._lifeline = Lifeline(path, lambda unit: 'its process has ended')
    self._started: set[str] = set()
    self._children: list[subprocess.Popen[bytes]] = []

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """See `Engine.start`."""
    self._lifeline.expect(unit, ticket, ended)
    if unit in self._started:
      command = [sys.executable, '-m', 'callsheet.launch.launchpad.entry']
      environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(ticket.path)}
      child = subprocess.Popen(
        [*command, self._path, unit], env=environment, start_new_session=True
      )
      self._children.append(child)
    self._started.add(unit)

  def kill(self, unit: str) -> None:
    """See `Engine.kill`."""
    self._lifeline.kill(unit)

  def note(self, unit: str, text: str) -> None:
    """See `Engine.note`."""
    self._say(unit, text)

  def log(self, unit: str) -> str:
    """See `Engine.log`."""
    return ''

  def close(self, failed: bool) -> None:
    """See `Engine.close`."""
    self._lifeline.close()
    for child in self._children:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
      child.wait()
