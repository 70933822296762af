"""What the supervisor knows of a unit: what lives and dies together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from callsheet.programs.plan import Plan


@dataclass
class Unit:
  """One unit, through all of its lives.

  Attributes:
    nodes: its nodes' names.
    company: the units that live and die with it, itself among them.
    life: which life it is in; 0 before the first.
    restarts: how often it was restarted, but for what is forgiven.
    began: when its present life did (monotonic).
    restart_at: when the next life shall begin (monotonic); None if none is due.
    kill_by: when it must have ended for that; None if nobody ended it.
    alive: whether its last life has not ended.
    ready: its nodes whose services are up, or have been.
    runs: its nodes that have a loop.
    running: those of them whose loop has not returned.
    stopped: its nodes that are closed.
  """

  nodes: tuple[str, ...]
  company: tuple[str, ...]
  life: int = 0
  restarts: int = 0
  began: float = 0.0
  restart_at: float | None = None
  kill_by: float | None = None
  alive: bool = False
  ready: set[str] = field(default_factory=set)
  runs: set[str] = field(default_factory=set)
  running: set[str] = field(default_factory=set)
  stopped: set[str] = field(default_factory=set)

  def begin(self) -> int:
    """A new life; gives its number."""
    self.life += 1
    self.began = time.monotonic()
    self.restart_at = self.kill_by = None
    self.ready, self.runs, self.running, self.stopped = set(), set(), set(), set()
    return self.life

  def forgive(self, after: float) -> None:
    """Forgets restarts before a life that has lasted so many seconds."""
    if time.monotonic() - self.began >= after:
      self.restarts = 0

  def leaving(self) -> bool:
    """Whether its nodes have all stopped and it is about to exit by itself."""
    return self.alive and self.stopped == set(self.nodes)


def units_of(plan: Plan) -> Mapping[str, Unit]:
  """Every unit of a plan by name, those of a company beside each other."""
  nodes = plan.units()
  return {
    name: Unit(tuple(node.name for node in nodes[name]), company)
    for company in plan.companies()
    for name in company
  }
