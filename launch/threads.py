"""Every node as a thread of this process: for debugging.

Calls still go through the courier, so that what can't be sent is noticed here already.
A `breakpoint()` in any node works: deadlines are lifted once one was reached.
"""

from __future__ import annotations

import os
import pdb
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from callsheet.errors import UsageError
from callsheet.launch import courier
from callsheet.launch.addresses import Book
from callsheet.launch.crew import Stacks
from callsheet.launch.debugger import Debugger
from callsheet.launch.events import Event, Exited, Failed, Stopped
from callsheet.launch.heart import Heart
from callsheet.launch.local import local_book
from callsheet.launch.node import NodeLife
from callsheet.launch.thread_logs import ThreadLogs
from callsheet.programs.plan import Plan


@dataclass(frozen=True)
class Threads:
  """Runs a program as threads of this process.

  Attributes:
    log_directory: a file for each unit's output goes here, beside the terminal; None
      for the terminal alone.
    deadline: seconds for a call that names none; None to wait for ever.
    pdb: whether pdb opens where a node raises an exception; no call times out then.
  """

  log_directory: str | None = None
  deadline: float | None = 60.0
  pdb: bool = False
  name: str = 'threads'
  # Nodes print, and debuggers ask, where the launcher does.
  shares_terminal: ClassVar[bool] = True

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> ThreadCrew:
    """See `Backend.open`."""
    for node in plan.nodes:
      if node.spmd is not None:
        raise UsageError(
          f'node {node.name!r} asks for {node.spmd.size} hosts, which are processes of '
          "their own, and the backend 'threads' has one for all; take "
          "backend='processes', or Resources(hosts=1)"
        )
    debugger = Debugger() if self.pdb else None
    deadline = None if self.pdb else self.deadline
    return ThreadCrew(plan, deadline, self.log_directory, debugger)


class ThreadCrew:
  """See `Crew`."""

  def __init__(
    self,
    plan: Plan,
    deadline: float | None,
    log_directory: str | None = None,
    debugger: Debugger | None = None,
  ) -> None:
    self._units, self._debugger = plan.units(), debugger
    self._logs = None if log_directory is None else ThreadLogs(log_directory, plan)
    self._lives: dict[str, NodeLife] = {}
    self._hearts: dict[str, Heart] = {}
    self._folder = tempfile.TemporaryDirectory(prefix='callsheet-')
    self.book: Book = local_book(plan, self._folder.name, deadline)
    # With a busy thread beside it, a call would wait 5 ms for the interpreter each way.
    self._switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    self._breakpointhook = sys.breakpointhook
    sys.breakpointhook = self._break

  def start(self, unit: str, report: Callable[[Event], None]) -> None:
    """See `Crew.start`."""
    left = {node.name for node in self._units[unit]}
    heart = self._hearts[unit] = Heart(unit, report)

    if self._logs is not None:
      self._logs.note(unit, 'its threads start')

    def pass_on(event: Event) -> None:
      if self._logs is not None and isinstance(event, Failed):
        self._logs.note(unit, event.failure.traceback or event.failure.reason)
      report(event)
      if isinstance(event, Stopped):
        left.discard(event.node)
        if not left:
          heart.stop()
          report(Exited(unit))

    for node in self._units[unit]:
      self._lives[node.name] = NodeLife(node, self.book, pass_on, self._debugger)
    heart.watch([self._lives[node.name] for node in self._units[unit]])
    heart.start()
    for node in self._units[unit]:
      self._lives[node.name].start()

  def stop(self, node: str) -> None:
    """See `Crew.stop`."""
    self._lives[node].stop()

  def kill(self, unit: str) -> None:
    """Raises in the unit's threads; one that sits in a system call ends after it."""
    for node in self._units[unit]:
      self._lives[node.name].abort()

  def dump(self, unit: str) -> Stacks:
    """See `Crew.dump`."""
    lives = [self._lives.get(node.name) for node in self._units[unit]]
    text = '\n'.join(life.stacks() for life in lives if life is not None)
    return Stacks(text) if text else Stacks(missing='it has no thread')

  def log(self, unit: str) -> str:
    """See `Crew.log`."""
    return '' if self._logs is None else self._logs.path(unit)

  def close(self, failed: bool) -> None:
    """See `Crew.close`."""
    for name, life in self._lives.items():
      life.abort()
      if not life.join(1.0):
        print(
          f'callsheet: the thread of {name!r} is stuck and was left', file=sys.stderr
        )
    for heart in self._hearts.values():
      heart.stop()
    if self._logs is not None:
      self._logs.close()
    sys.breakpointhook = self._breakpointhook
    sys.setswitchinterval(self._switch_interval)
    courier.suspend_deadlines(False)
    self._folder.cleanup()

  def _break(self, *args: object, **kwargs: object) -> object:
    courier.suspend_deadlines(True)
    chosen = 'PYTHONBREAKPOINT' in os.environ
    if chosen or self._breakpointhook is not sys.__breakpointhook__:
      return self._breakpointhook(*args, **kwargs)
    # Python's own hook would stop in this frame instead of the node's.
    pdb.Pdb().set_trace(sys._getframe(1))
    return None
