"""A running program: follows its nodes, restarts them, and ends it in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, overload

from callsheet.calls import call_async
from callsheet.errors import NodeFailed
from callsheet.launch import courier
from callsheet.launch.blame import first_failure
from callsheet.launch.crew import Crew, Stacks
from callsheet.launch.following import Following
from callsheet.launch.standing import Standing, state_of
from callsheet.outcomes import Outcome
from callsheet.programs.handle import name_of
from callsheet.programs.plan import Plan, concludes

S = TypeVar('S')

# Seconds that a service has to take in how the program ends.
_TELL = 2.0


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
    self._following = Following(plan, crew, say)
    self._clients: dict[str, Any] = {}
    self._over = False

  def start(self) -> None:
    """Starts every unit, those that are called before their callers."""
    for level in reversed(self._plan.stop_order()):
      for node in level:
        unit_name = self._following.unit_of[node]
        if not self._following.units[unit_name].life:
          self._following.start(unit_name)

  def __enter__(self) -> Running:
    return self

  def __exit__(self, kind: object, error: object, trace: object) -> None:
    self.stop()
    if self._following.failures and error is None:
      raise self._first_failure()

  @property
  def plan(self) -> Plan:
    """What runs."""
    return self._plan

  @property
  def stopping(self) -> bool:
    """Whether the nodes are being stopped."""
    return self._following.stopping

  def end(self) -> None:
    """Has `wait` end the program well, as a node does that ends it; from any thread."""
    self._following.settle()
    self._following.wake()

  def connect(self, node: str) -> Any:
    """A client of the node of this name that is the caller's own to close."""
    return self._crew.book.connect(self._plan.node(node).name)

  def standings(self) -> dict[str, Standing]:
    """How each node stands; from any thread."""
    failed = {failure.node for failure in list(self._following.failures)}
    return {
      node.name: Standing(
        state_of(self._following.units[node.unit], node.name, node.name in failed),
        self._following.units[node.unit].restarts,
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
        self._following.follow(min(until, self._following.next_timer()) - now)
        if (
          self._following.settled_at is not None
          and time.monotonic() >= self._following.settled_at
        ):
          self.stop()
    except KeyboardInterrupt:
      self._say(self._plan.name, 'stopping in order; Ctrl-C again stops at once')
      self.stop()
      raise
    if self._over and self._following.failures:
      raise self._first_failure()
    return self._over

  def stop(self) -> None:
    """Stops the nodes, callers before those they call, and gives everything back.

    Ctrl-C meanwhile kills what is left. Does nothing the second time.
    """
    if self._over:
      return
    self._following.stopping = True
    try:
      self._kill_broken()
      for level in self._plan.stop_order():
        self._conclude(level)
        self._stop_level(level)
    finally:
      # Those whose nodes have all stopped are about to exit by themselves.
      self._following.follow_until(
        lambda: not any(u.leaving() for u in self._following.units.values()), 1.0
      )
      for name, unit in self._following.units.items():
        if unit.alive:
          self._crew.kill(name)
      self._following.follow_until(
        lambda: not any(u.alive for u in self._following.units.values()), 5.0
      )
      for client in self._clients.values():
        courier.close(client)
      self._over = True
      self._crew.close(failed=any(not f.refused for f in self._following.failures))

  def _kill_broken(self) -> None:
    """Kills what is left of a company that lost one: it may wait for it for ever."""
    failed = {
      self._following.unit_of[failure.node] for failure in self._following.failures
    }
    for name, unit in self._following.units.items():
      if unit.alive and name not in failed and not failed.isdisjoint(unit.company):
        self._crew.kill(name)

  def _conclude(self, level: tuple[str, ...]) -> None:
    """Tells the services of a level that want to know how the program ends."""

    def wake(told: Future[Any]) -> None:
      self._following.wake()

    told = [
      call_async(self.client(node).conclude, self._outcome())
      for node in level
      if concludes(self._plan.node(node)) and self._up(node)
    ]
    for each in told:
      each.add_done_callback(wake)
    self._following.follow_until(lambda: all(each.done() for each in told), _TELL)

  def _up(self, node: str) -> bool:
    unit = self._following.units[self._following.unit_of[node]]
    return unit.alive and node in unit.ready and node not in unit.stopped

  def _outcome(self) -> Outcome:
    if self._following.failures:
      return 'failed'
    return 'interrupted' if self._following.settled_at is None else 'finished'

  def _stop_level(self, level: tuple[str, ...]) -> None:
    def ended(node: str) -> bool:
      unit = self._following.units[self._following.unit_of[node]]
      return not unit.alive or node in unit.stopped

    for node in level:
      if not ended(node):
        self._crew.stop(node)
    graces = {node: max(self._grace, self._plan.node(node).grace) for node in level}
    began = time.monotonic()
    for grace in sorted({*graces.values()}):
      left = began + grace - time.monotonic()
      if self._following.follow_until(lambda: all(map(ended, level)), left):
        return
      for node in level:
        if graces[node] <= grace and not ended(node):
          self._say(node, f'did not stop within {grace:g} s: killed')
          self._crew.kill(self._following.unit_of[node])

  def dump_stacks(self, node: str) -> Stacks:
    """Has the stacks of a node's process written to its log, or gives them.

    Raises:
      GraphError: there is no such node.
    """
    return self._crew.dump(self._plan.node(node).unit)

  def _first_failure(self) -> NodeFailed:
    """The failure that the others died of."""
    failure = first_failure(self._following.failures)
    log = self._crew.log(self._following.unit_of[failure.node])
    return NodeFailed(
      failure.node, failure.reason, failure.traceback, log, failure.refused
    )
