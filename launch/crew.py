"""The seam: what a launch backend has to give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from callsheet.launch.addresses import Book
from callsheet.launch.events import Event
from callsheet.programs.plan import Plan


@dataclass(frozen=True)
class Stacks:
  """What every thread of a unit is doing.

  Attributes:
    text: the stacks; empty where they are written to the unit's log.
    missing: why there are none; empty if there are.
  """

  text: str = ''
  missing: str = ''


class Crew(Protocol):
  """The units of one running program; the supervisor alone calls this, from one thread,
  but for `dump`, which may come from any.

  A unit is what lives and dies together: one node, or the nodes that are colocated.
  """

  @property
  def book(self) -> Book:
    """How the launcher reaches the nodes."""

  def start(self, unit: str, report: Callable[[Event], None]) -> None:
    """Starts a unit; `report` may be called from any thread, `Exited` last of all."""

  def stop(self, node: str) -> None:
    """Asks one node to end; its `Stopped` follows when it has."""

  def kill(self, unit: str) -> None:
    """Ends a unit at once; its `Exited` follows."""

  def dump(self, unit: str) -> Stacks:
    """Has a unit's stacks written to its log, within a moment, or gives them."""

  def log(self, unit: str) -> str:
    """Where the unit's output is; empty where there is no file."""

  def close(self, failed: bool) -> None:
    """Gives back what the program held, after every unit has exited."""


class Backend(Protocol):
  """A way to run a plan; its fields are the backend's options."""

  @property
  def name(self) -> str: ...

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> Crew:
    """Makes ready to start the plan's units.

    Args:
      plan: what to run.
      say: prints a line under a node's name.
    """


@runtime_checkable
class Described(Protocol):
  """A backend that can say what it would submit."""

  def dry_run(self, plan: Plan) -> str:
    """Exactly what would be submitted, with what holds secrets left out."""


@runtime_checkable
class Detachable(Protocol):
  """A backend whose programs can outlive the launcher."""

  def submit(self, plan: Plan) -> str:
    """Submits the program as a job; says which, and how to follow and to cancel it."""
