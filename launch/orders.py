"""What the process of a unit is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from callsheet.launch.addresses import AddressBook


@dataclass(frozen=True)
class Orders:
  """What the launcher sends first.

  Attributes:
    nodes: the unit's `NodePlan`s, pickled apart: `path` must be known first.
    book: where everybody is.
    path: the launcher's `sys.path`.
    folder: removed if the launcher dies, for it can't any more.
  """

  nodes: bytes
  book: AddressBook
  path: list[str]
  folder: str
