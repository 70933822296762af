"""How a node stands, as its supervisor knows."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal[
  'waiting',
  'starting',
  'running',
  'serving',
  'finished',
  'restarting',
  'stopped',
  'failed',
]


@dataclass(frozen=True)
class Standing:
  """How one node stands.

  Attributes:
    state: 'waiting' (not started yet), 'starting' (its constructor runs), 'running'
      (its loop does), 'serving' (it has none), 'finished' (the loop has returned; it
      serves on), 'restarting' (it died and will be started again), 'stopped' or
      'failed'.
    restarts: so far.
    log: the file with its output; empty where there is none.
  """

  state: State
  restarts: int
  log: str

  @property
  def up(self) -> bool:
    """Whether the node answers calls."""
    return self.state in ('running', 'serving', 'finished')


class Unit(Protocol):
  """What the supervisor knows of the process that a node is in.

  Attributes:
    life: which of its lives it is in; 0 before the first.
    restart_at: when it will be started again; None if that isn't due.
    alive: whether its process is.
    ready: of its nodes, those whose service is up.
    runs: those that have a loop.
    running: those whose loop has not returned.
    stopped: those that are closed.
  """

  @property
  def life(self) -> int: ...
  @property
  def restart_at(self) -> float | None: ...
  @property
  def alive(self) -> bool: ...
  @property
  def ready(self) -> Set[str]: ...
  @property
  def runs(self) -> Set[str]: ...
  @property
  def running(self) -> Set[str]: ...
  @property
  def stopped(self) -> Set[str]: ...


def state_of(unit: Unit, node: str, failed: bool) -> State:
  """The state of a node of the unit; `failed` if it has for good."""
  if failed:
    return 'failed'
  if unit.restart_at is not None:
    return 'restarting'
  if not unit.life:
    return 'waiting'
  if not unit.alive or node in unit.stopped:
    return 'stopped'
  if node not in unit.ready:
    return 'starting'
  if node in unit.runs:
    return 'running' if node in unit.running else 'finished'
  return 'serving'
