"""The crew of every engine that starts workers on hosts."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from typing import Protocol

import cloudpickle

from callsheet.launch import courier
from callsheet.launch.crew import Stacks
from callsheet.launch.devices import process_environment, unit_resources
from callsheet.launch.events import Event, Exited, Failed
from callsheet.launch.remote.book import DeskBook
from callsheet.launch.remote.desk import Desk
from callsheet.launch.remote.ticket import Ticket, carried_path
from callsheet.programs.plan import Plan

_LOOK = 0.5  # seconds between two looks for workers that are overdue
# What of the launcher's environment its workers have too.
_FORWARDED = ('JAX_', 'XLA_', 'CALLSHEET_')


class Engine(Protocol):
  """Starts workers, `python -m callsheet.launch.remote.worker`, where it has room."""

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """Starts a worker and gives it the ticket.

    Args:
      unit: what the worker will be.
      ticket: for its standard input or a file that nobody else can read.
      ended: to be called once its process is gone, with the reason, from any thread.
    """

  def kill(self, unit: str) -> None:
    """Ends the unit's worker at once, if the engine can."""

  def note(self, unit: str, text: str) -> None:
    """Writes to the unit's log what its worker does not say itself."""

  def log(self, unit: str) -> str:
    """Where the unit's output is; empty where there is no file."""

  def close(self, failed: bool) -> None:
    """Gives back what the engine held."""


class RemoteCrew:
  """See `Crew`; the units' workers sign on at a desk of this process.

  Args:
    plan: what runs.
    engine: starts the workers.
    address: of this host, as the workers reach it; nothing listens on any other.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a worker may take to sign on; None for no limit.
    silence: seconds without a word after which a worker counts as lost, and after
      which it ends itself.
    secret: the program's own; a new one by default.
    port: of the desk; any free one by default.
  """

  def __init__(
    self,
    plan: Plan,
    engine: Engine,
    address: str,
    *,
    deadline: float | None = 60.0,
    arrival: float | None = 60.0,
    silence: float = 45.0,
    secret: bytes | None = None,
    port: int = 0,
  ) -> None:
    self._engine, self._silence = engine, silence
    self._units = plan.units()
    self._unit_of = {node.name: node.unit for node in plan.nodes}
    nodes = {unit: cloudpickle.dumps(nodes) for unit, nodes in self._units.items()}
    first = {unit: nodes[0].name for unit, nodes in self._units.items()}
    self._desk = Desk(nodes, first, deadline=deadline, arrival=arrival, silence=silence)
    self._secret = secret or secrets.token_bytes(32)
    host = f'[{address}]' if ':' in address else address
    self._server = courier.Server(f'tcp:{host}:{port}', self._secret, 'desk')
    self._server.serve(self._desk)
    self.book = DeskBook(self._desk, _nobody_listens, self._secret, address, deadline)
    self._closed = threading.Event()
    self._watch = threading.Thread(target=self._look, daemon=True, name='desk watch')
    self._watch.start()

  def start(self, unit: str, report: Callable[[Event], None]) -> None:
    """See `Crew.start`."""

    def noted(event: Event) -> None:
      if isinstance(event, Failed):
        self._engine.note(unit, event.failure.traceback or event.failure.reason)
      elif isinstance(event, Exited):
        self._engine.note(unit, event.reason or 'the worker has ended')
      report(event)

    life = self._desk.expect(unit, noted)
    ticket = Ticket(
      desk=self._server.address,
      secret=self._secret.hex(),
      unit=unit,
      life=life,
      patience=self._silence,
      environment=self._environment(unit),
      path=carried_path(),
    )
    self._engine.start(unit, ticket, lambda reason: self._desk.end(unit, life, reason))

  def stop(self, node: str) -> None:
    """See `Crew.stop`."""
    self._desk.stop(self._unit_of[node], node)

  def kill(self, unit: str) -> None:
    """Ends the unit's worker, by its own doing and by the engine's."""
    self._desk.dismiss(unit)
    self._engine.kill(unit)

  def dump(self, unit: str) -> Stacks:
    """See `Crew.dump`."""
    if self._desk.dump(unit):
      return Stacks()
    return Stacks(missing='its worker does not answer, so there are no stacks of it')

  def log(self, unit: str) -> str:
    """See `Crew.log`."""
    return self._engine.log(unit)

  def close(self, failed: bool) -> None:
    """See `Crew.close`."""
    self._desk.close()
    self._closed.set()
    self._watch.join()
    self._engine.close(failed)
    self._server.close()

  def _look(self) -> None:
    while not self._closed.wait(_LOOK):
      self._desk.look()

  def _environment(self, unit: str) -> dict[str, str]:
    resources = unit_resources(tuple(node.resources for node in self._units[unit]))
    forwarded = {
      name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)
    }
    return process_environment(resources, forwarded)


def _nobody_listens(node: str, address: str) -> None:
  raise AssertionError(f'no node runs in the launcher: {node!r} at {address}')
