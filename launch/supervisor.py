"""A running program: follows its nodes, restarts them, and ends it in order."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from callsheet.calls import call_async
from callsheet.errors import NodeFailed
from callsheet.launch import courier
from callsheet.launch.addresses import group_of
from callsheet.launch.crew import Crew
from callsheet.launch.events import (
  Event,
  Exited,
  Failed,
  Failure,
  Finished,
  Ready,
  Stopped,
)
from callsheet.launch.standing import Standing, state_of
from callsheet.outcomes import Outcome
from callsheet.programs.handle import name_of
from callsheet.programs.plan import Plan, concludes

S = TypeVar('S')

# The node that dies and those that miss it report within this many seconds.
SETTLE = 0.5

# Seconds that a service has to take in how the program ends.
_TELL = 2.0


@dataclass
class _Unit:
  nodes: tuple[str, ...]
  company: tuple[str, ...]
  life: int = 0
  restarts: int = 0
  restart_at: float | None = None
  alive: bool = False
  ready: set[str] = field(default_factory=set)
  runs: set[str] = field(default_factory=set)
  running: set[str] = field(default_factory=set)
  stopped: set[str] = field(default_factory=set)


def _leaving(unit: _Unit) -> bool:
  return unit.alive and unit.stopped == set(unit.nodes)


class Running:
  """A program that was started.

  Leave it through `with`: whatever happens, every node is stopped by then.

  Args:
    plan: what runs.
    crew: the backend's units.
    say: prints a line under a node's name.
    grace: seconds that a node has to end by itself once asked to.
  """

  def __init__(
    self, plan: Plan, crew: Crew, say: Callable[[str, str], None], grace: float
  ) -> None:
    self._plan, self._crew, self._say, self._grace = plan, crew, say, grace
    self._events: queue.SimpleQueue[tuple[str, int, Event]] = queue.SimpleQueue()
    nodes = plan.units()
    self._companies = plan.companies()
    self._units = {
      name: _Unit(tuple(node.name for node in nodes[name]), company)
      for company in self._companies
      for name in company
    }
    self._unit_of = {node.name: node.unit for node in plan.nodes}
    self._failures: list[Failure] = []
    self._settled_at: float | None = None
    self._clients: dict[str, Any] = {}
    self._stopping = False
    self._over = False

  def start(self) -> None:
    """Starts every unit, those that are called before their callers."""
    for level in reversed(self._plan.stop_order()):
      for node in level:
        unit = self._units[self._unit_of[node]]
        if not unit.life:
          self._start(self._unit_of[node])

  def __enter__(self) -> Running:
    return self

  def __exit__(self, kind: object, error: object, trace: object) -> None:
    self.stop()
    if self._failures and error is None:
      raise self._first_failure()

  @property
  def plan(self) -> Plan:
    """What runs."""
    return self._plan

  @property
  def stopping(self) -> bool:
    """Whether the nodes are being stopped."""
    return self._stopping

  def end(self) -> None:
    """Has `wait` end the program well, as a node does that ends it; from any thread."""
    self._settled_at = self._settled_at or time.monotonic()
    # Of no life that there is: it wakes whoever follows.
    self._events.put((self._plan.nodes[0].unit, -1, Stopped('')))

  def connect(self, node: str) -> Any:
    """A client of the node of this name that is the caller's own to close."""
    return self._crew.book.connect(self._plan.node(node).name)

  def standings(self) -> dict[str, Standing]:
    """How each node stands; from any thread."""
    failed = {failure.node for failure in list(self._failures)}
    return {
      node.name: Standing(
        state_of(self._units[node.unit], node.name, node.name in failed),
        self._units[node.unit].restarts,
        self._crew.log(node.unit),
      )
      for node in self._plan.nodes
    }

  @property
  def over(self) -> bool:
    """Whether every node has ended."""
    return self._over

  @overload
  def client(self, node: str) -> Any: ...
  @overload
  def client(self, node: S) -> S: ...
  def client(self, node: Any) -> Any:
    """A client of a running node.

    Args:
      node: what `Program.add` returned for it, or its name.

    Raises:
      GraphError: there is no such node.
    """
    name = self._plan.node(node if isinstance(node, str) else name_of(node)).name
    if name not in self._clients:
      self._clients[name] = self._crew.book.connect(name)
    return self._clients[name]

  def wait(self, timeout: float | None = None) -> bool:
    """Follows the program until it ends, or for `timeout` seconds.

    Returns:
      True if the program has ended well.

    Raises:
      NodeFailed: a node failed that has no restart left.
      KeyboardInterrupt: after Ctrl-C, once the nodes have stopped in order; a second
        one kills them.
    """
    until = float('inf') if timeout is None else time.monotonic() + timeout
    try:
      while not self._over and (now := time.monotonic()) < until:
        self._follow(min(until, self._next_timer()) - now)
        if self._settled_at is not None and time.monotonic() >= self._settled_at:
          self.stop()
    except KeyboardInterrupt:
      self._say(self._plan.name, 'stopping in order; Ctrl-C again stops at once')
      self.stop()
      raise
    if self._over and self._failures:
      raise self._first_failure()
    return self._over

  def stop(self) -> None:
    """Stops the nodes, callers before those they call, and gives everything back.

    Ctrl-C meanwhile kills what is left. Does nothing the second time.
    """
    if self._over:
      return
    self._stopping = True
    try:
      self._kill_broken()
      for level in self._plan.stop_order():
        self._conclude(level)
        self._stop_level(level)
    finally:
      # Those whose nodes have all stopped are about to exit by themselves.
      self._follow_until(lambda: not any(map(_leaving, self._units.values())), 1.0)
      for name, unit in self._units.items():
        if unit.alive:
          self._crew.kill(name)
      self._follow_until(lambda: not any(u.alive for u in self._units.values()), 5.0)
      for client in self._clients.values():
        courier.close(client)
      self._over = True
      self._crew.close(failed=any(not f.refused for f in self._failures))

  def _kill_broken(self) -> None:
    """Kills what is left of a company that lost one: it may wait for it for ever."""
    failed = {self._unit_of[failure.node] for failure in self._failures}
    for name, unit in self._units.items():
      if unit.alive and name not in failed and not failed.isdisjoint(unit.company):
        self._crew.kill(name)

  def _conclude(self, level: tuple[str, ...]) -> None:
    """Tells the services of a level that want to know how the program ends."""

    def wake(told: Future[Any]) -> None:
      # Of no life that there is: it ends a wait for events.
      self._events.put((self._unit_of[level[0]], -1, Stopped('')))

    told = [
      call_async(self.client(node).conclude, self._outcome())
      for node in level
      if concludes(self._plan.node(node)) and self._up(node)
    ]
    for each in told:
      each.add_done_callback(wake)
    self._follow_until(lambda: all(each.done() for each in told), _TELL)

  def _up(self, node: str) -> bool:
    unit = self._units[self._unit_of[node]]
    return unit.alive and node in unit.ready and node not in unit.stopped

  def _outcome(self) -> Outcome:
    if self._failures:
      return 'failed'
    return 'interrupted' if self._settled_at is None else 'finished'

  def _stop_level(self, level: tuple[str, ...]) -> None:
    def ended(node: str) -> bool:
      unit = self._units[self._unit_of[node]]
      return not unit.alive or node in unit.stopped

    for node in level:
      if not ended(node):
        self._crew.stop(node)
    graces = {node: max(self._grace, self._plan.node(node).grace) for node in level}
    began = time.monotonic()
    for grace in sorted({*graces.values()}):
      left = began + grace - time.monotonic()
      if self._follow_until(lambda: all(map(ended, level)), left):
        return
      for node in level:
        if graces[node] <= grace and not ended(node):
          self._say(node, f'did not stop within {grace:g} s: killed')
          self._crew.kill(self._unit_of[node])

  def _start(self, name: str) -> None:
    unit = self._units[name]
    unit.life += 1
    unit.restart_at = None
    unit.ready, unit.runs, unit.running, unit.stopped = set(), set(), set(), set()
    life = unit.life
    self._crew.start(name, lambda event: self._events.put((name, life, event)))
    # Ctrl-C may come before this line: what was half started is the crew's to close.
    unit.alive = True

  def _next_timer(self) -> float:
    timers = [self._settled_at]
    for company in self._companies:
      units = [self._units[name] for name in company]
      # It starts anew once the last of it is gone, which is an event.
      if not any(unit.alive for unit in units):
        timers.append(units[0].restart_at)
    return min([at for at in timers if at is not None], default=float('inf'))

  def _follow_until(self, done: Callable[[], bool], timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not done() and (now := time.monotonic()) < until:
      self._follow(until - now)
    return done()

  def _follow(self, timeout: float) -> None:
    """Takes in one event, if one comes in time, and starts what is due."""
    try:
      name, life, event = self._events.get(timeout=max(0.0, min(timeout, 3600.0)))
    except queue.Empty:
      pass
    else:
      if life == self._units[name].life:
        self._take_in(name, self._units[name], event)
    if not self._stopping:
      for company in self._companies:
        units = [self._units[name] for name in company]
        due = all(u.restart_at and time.monotonic() >= u.restart_at for u in units)
        if due and not any(unit.alive for unit in units):
          for name in company:
            self._start(name)

  def _take_in(self, name: str, unit: _Unit, event: Event) -> None:
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
        known = any(failure.node in unit.nodes for failure in self._failures)
        if not (known or self._stopping or unit.restart_at is not None):
          node, reason = unit.nodes[0], reason or 'exited before it was asked to'
          # So JAX ends a process that misses another of its group.
          aborted = len(unit.company) > 1 and 'SIGABRT' in reason
          blames = group_of(unit.company[0]) if aborted else ''
          self._fail(name, node, Failure(node, reason, blames=blames))

  def _finish(self, name: str, node: str) -> None:
    declared, unit = self._plan.node(node), self._units[name]
    if self._stopping or unit.restart_at is not None:
      return
    if declared.ends_program:
      self._settled_at = self._settled_at or time.monotonic()
    elif declared.spmd is not None and declared.spmd.rank:
      self._end_if_done()  # The first of its company says when that is done.
    elif declared.restart.allows(failed=False, restarts=unit.restarts):
      self._restart(name, node, 'finished')
    else:
      self._end_if_done()

  def _end_if_done(self) -> None:
    """A program in which every loop has returned has nothing left to wait for."""
    units = self._units.values()
    if not any(unit.runs for unit in units):
      return
    if all(unit.ready == set(unit.nodes) and not unit.running for unit in units):
      self._settled_at = self._settled_at or time.monotonic()

  def _fail(self, name: str, node: str, failure: Failure) -> None:
    unit = self._units[name]
    if unit.restart_at is not None:
      return
    restart = self._plan.node(node).restart
    # What was refused once would be again.
    again = not (self._stopping or failure.refused)
    if again and restart.allows(failed=True, restarts=unit.restarts):
      self._restart(name, node, failure.reason)
      return
    self._failures.append(failure)
    if self._settled_at is None:
      self._settled_at = time.monotonic() + SETTLE

  def _restart(self, name: str, node: str, why: str) -> None:
    restarts = self._units[name].restarts
    delay = self._plan.node(node).restart.delay(restarts)
    restart_at = time.monotonic() + delay
    self._say(node, f'{why}; restart {restarts + 1} in {delay:.1f} s')
    for each in self._units[name].company:
      unit = self._units[each]
      unit.restarts, unit.restart_at, unit.ready = restarts + 1, restart_at, set()
      if unit.alive:
        self._crew.kill(each)

  def _first_failure(self) -> NodeFailed:
    """The failure that the others died of."""
    by_node = {failure.node: failure for failure in reversed(self._failures)}
    failure = next((f for f in self._failures if not f.blames), self._failures[0])
    seen = set()
    while failure.blames in by_node and failure.node not in seen:
      seen.add(failure.node)
      failure = by_node[failure.blames]
    log = self._crew.log(self._unit_of[failure.node])
    return NodeFailed(
      failure.node, failure.reason, failure.traceback, log, failure.refused
    )
