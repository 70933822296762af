"""What becomes of the units of a running program: events, silence, and restarts."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from callsheet.launch.addresses import group_of
from callsheet.launch.crew import Crew
from callsheet.launch.events import (
  Beat,
  Event,
  Exited,
  Failed,
  Failure,
  Finished,
  Ready,
  Stopped,
)
from callsheet.launch.units import Unit, units_of
from callsheet.launch.watch import Watch
from callsheet.programs.plan import Plan

# The node that dies and those that miss it report within this many seconds.
SETTLE = 0.5

# A unit that was killed is gone within this many seconds.
_GONE = 10.0


class Following:
  """Takes in what the units tell, and starts them again as their policies say.

  Args:
    plan: what runs.
    crew: the backend's units.
    say: prints a line under a node's name.

  Attributes:
    units: all, by name.
    unit_of: the name of each node's unit.
    failures: those that no restart was left for, as they came.
    settled_at: when the program is to be stopped (monotonic); None if it goes on.
    stopping: whether it is being stopped: nothing is restarted any more.
  """

  def __init__(self, plan: Plan, crew: Crew, say: Callable[[str, str], None]) -> None:
    self._plan, self._crew, self._say = plan, crew, say
    self._events: queue.SimpleQueue[tuple[str, int, Event]] = queue.SimpleQueue()
    self._companies = plan.companies()
    self._watch = Watch(plan.units(), crew, say)
    self.units = units_of(plan)
    self.unit_of = {node.name: node.unit for node in plan.nodes}
    self.failures: list[Failure] = []
    self.settled_at: float | None = None
    self.stopping = False

  def settle(self) -> None:
    """Nothing is left to wait for; from any thread."""
    self.settled_at = self.settled_at or time.monotonic()

  def wake(self) -> None:
    """Ends a wait for events; from any thread."""
    # Of no life that there is.
    self._events.put((self._plan.nodes[0].unit, -1, Stopped('')))

  def start(self, name: str) -> None:
    """Begins a unit's next life."""
    unit = self.units[name]
    life = unit.begin()
    self._watch.forget(name)

    def report(event: Event) -> None:
      if not isinstance(event, Beat):
        self._events.put((name, life, event))
      elif life == unit.life:
        self._watch.hear(event)

    self._crew.start(name, report)
    # Ctrl-C may come before this line: what was half started is the crew's to close.
    unit.alive = True

  def next_timer(self) -> float:
    """When something is due, even if no event comes (monotonic)."""
    timers = [self.settled_at, self._watch.next_look]
    for company in self._companies:
      units = [self.units[name] for name in company]
      # It starts anew once the last of it is gone, which is an event.
      if not any(unit.alive for unit in units):
        timers.append(units[0].restart_at)
    return min([at for at in timers if at is not None], default=float('inf'))

  def follow_until(self, done: Callable[[], bool], timeout: float) -> bool:
    """Follows until it is so, at most `timeout` seconds; whether it is."""
    until = time.monotonic() + timeout
    while not done() and (now := time.monotonic()) < until:
      self.follow(min(until, self._watch.next_look) - now)
    return done()

  def follow(self, timeout: float) -> None:
    """Takes in one event, if one comes in time, and starts what is due."""
    try:
      name, life, event = self._events.get(timeout=max(0.0, min(timeout, 3600.0)))
    except queue.Empty:
      pass
    else:
      if life == self.units[name].life:
        self._take_in(name, self.units[name], event)
    self._look()
    if not self.stopping:
      for company in self._companies:
        units = [self.units[name] for name in company]
        due = all(u.restart_at and time.monotonic() >= u.restart_at for u in units)
        if due and not any(unit.alive for unit in units):
          for name in company:
            self.start(name)

  def _take_in(self, name: str, unit: Unit, event: Event) -> None:
    match event:
      case Ready(node, runs):
        unit.ready.add(node)
        if runs:
          unit.runs.add(node)
          unit.running.add(node)
        self._end_if_done()
      case Finished(node):
        unit.ready.add(node)
        unit.runs.add(node)
        unit.running.discard(node)
        self._finish(name, node)
      case Failed(node, failure):
        self._fail(name, node, failure)
      case Stopped(node):
        unit.stopped.add(node)
      case Exited(_, reason):
        unit.alive = False
        self._watch.forget(name)
        known = any(failure.node in unit.nodes for failure in self.failures)
        if not (known or self.stopping or unit.restart_at is not None):
          node, reason = unit.nodes[0], reason or 'exited before it was asked to'
          # So JAX ends a process that misses another of its group.
          aborted = len(unit.company) > 1 and 'SIGABRT' in reason
          blames = group_of(unit.company[0]) if aborted else ''
          self._fail(name, node, Failure(node, reason, blames=blames))

  def _finish(self, name: str, node: str) -> None:
    declared, unit = self._plan.node(node), self.units[name]
    if self.stopping or unit.restart_at is not None:
      return
    unit.forgive(declared.restart.forgiven_after)
    if declared.ends_program:
      self.settle()
    elif declared.spmd is not None and declared.spmd.rank:
      self._end_if_done()  # The first of its company says when that is done.
    elif declared.restart.allows(failed=False, restarts=unit.restarts):
      self._restart(name, node, 'finished')
    else:
      self._end_if_done()

  def _end_if_done(self) -> None:
    """A program in which every loop has returned has nothing left to wait for."""
    units = self.units.values()
    if not any(unit.runs for unit in units):
      return
    if all(unit.ready == set(unit.nodes) and not unit.running for unit in units):
      self.settle()

  def _fail(self, name: str, node: str, failure: Failure) -> None:
    unit = self.units[name]
    if unit.restart_at is not None:
      return
    restart = self._plan.node(node).restart
    unit.forgive(restart.forgiven_after)
    # What was refused once would be again.
    again = not (self.stopping or failure.refused)
    if again and restart.allows(failed=True, restarts=unit.restarts):
      self._restart(name, node, failure.reason)
      return
    self.failures.append(failure)
    if self.settled_at is None:
      self.settled_at = time.monotonic() + SETTLE

  def _restart(self, name: str, node: str, why: str) -> None:
    restarts = self.units[name].restarts
    delay = self._plan.node(node).restart.delay(restarts)
    restart_at = time.monotonic() + delay
    self._say(node, f'{why}; restart {restarts + 1} in {delay:.1f} s')
    for each in self.units[name].company:
      unit = self.units[each]
      unit.restarts, unit.restart_at, unit.ready = restarts + 1, restart_at, set()
      if unit.alive:
        unit.kill_by = time.monotonic() + _GONE
        self._crew.kill(each)

  def _look(self) -> None:
    """Ends the units that have fallen silent; gives up those that can't be ended."""
    for silent in self._watch.look():
      self._crew.kill(silent.unit)
      if not self.stopping:
        failure = Failure(silent.node, silent.reason, silent.stacks)
        self._fail(silent.unit, silent.node, failure)
    for unit in self.units.values():
      if unit.alive and unit.kill_by is not None and time.monotonic() > unit.kill_by:
        unit.kill_by = unit.restart_at = None
        self._give_up(unit.nodes[0])

  def _give_up(self, node: str) -> None:
    reason = (
      f'it was to be restarted and has not ended within {_GONE:g} s; a thread that is '
      "stuck can not be ended, a process can: backend='processes'"
    )
    stacks = self._crew.dump(self.unit_of[node])
    self.failures.append(Failure(node, reason, stacks.text))
    self.settle()
