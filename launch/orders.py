"""What the process of a unit is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from callsheet.launch.addresses import AddressBook
from callsheet.launch.debugger import Debugger


@dataclass(frozen=True)
class Orders:
  """What the launcher sends first.

  Attributes:
    unit: its name.
    nodes: the unit's `NodePlan`s, pickled apart: `path` must be known first.
    book: where everybody is.
    path: the launcher's `sys.path`.
    folder: removed if the launcher dies, for it can't any more.
    debugger: for its exceptions and breakpoints; None for none.
  """

  unit: str
  nodes: bytes
  book: AddressBook
  path: list[str]
  folder: str
  debugger: Debugger | None = None
