"""What a drawing of a plan has, in whatever language: boxes, frames, arrows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from callsheet.programs.plan import NodePlan, Plan

MANY = 4


@dataclass(frozen=True)
class Box:
  """One node, or many that are alike.

  Attributes:
    id: 'n0', 'n1', ... in order of declaration.
    members: its nodes.
  """

  id: str
  members: tuple[NodePlan, ...]

  @property
  def title(self) -> str:
    """'learner, 2 hosts', or 'actor x8'."""
    first = self.members[0]
    count = len(self.members)
    title = first.name if count == 1 else f'{_path(first)} x{count}'
    if first.resources.hosts > 1:
      title += f', {first.resources.hosts} hosts'
    return title

  @property
  def service(self) -> str:
    """The type of its service."""
    return self.members[0].service


@dataclass(frozen=True)
class Drawing:
  """All that is drawn.

  Attributes:
    frames: by the name of a process, the boxes of the nodes that share it.
    others: the boxes outside of frames.
    arrows: from the id of a caller's box to that of whom it calls, each once.
  """

  frames: tuple[tuple[str, tuple[Box, ...]], ...]
  others: tuple[Box, ...]
  arrows: tuple[tuple[str, str], ...]


def drawing(plan: Plan) -> Drawing:
  """A plan as boxes and arrows.

  More than four nodes of a group that are alike (service, callees, callers, resources,
  restart) become one box. Nodes that share a process share a frame; the processes that
  run one node are one box.
  """
  plan = _led(plan)
  boxes = _boxes(plan)
  box_of = {node.name: box.id for box in boxes for node in box.members}
  units = {name: members for name, members in plan.units().items() if len(members) > 1}
  arrows = {
    (box_of[node.name], box_of[callee]): None
    for node in plan.nodes
    for callee in node.callees
  }
  return Drawing(
    tuple(
      (unit, tuple(box for box in boxes if box.members[0] in members))
      for unit, members in units.items()
    ),
    tuple(box for box in boxes if box.members[0].unit not in units),
    tuple(arrows),
  )


def _led(plan: Plan) -> Plan:
  """The plan without the further processes of its nodes."""
  return Plan(
    plan.name, tuple(n for n in plan.nodes if n.spmd is None or n.spmd.rank == 0)
  )


def _boxes(plan: Plan) -> list[Box]:
  alike: dict[Hashable, tuple[NodePlan, ...]] = {}
  for node, key in zip(plan.nodes, _likeness(plan), strict=True):
    alike[key] = (*alike.get(key, ()), node)
  groups: list[tuple[NodePlan, ...]] = []
  for members in alike.values():
    whole = len(members) > MANY
    groups += [members] if whole else [(member,) for member in members]
  position = {node.name: index for index, node in enumerate(plan.nodes)}
  groups.sort(key=lambda members: position[members[0].name])
  return [Box(f'n{index}', members) for index, members in enumerate(groups)]


def _likeness(plan: Plan) -> list[Hashable]:
  callers: dict[str, set[str]] = {node.name: set() for node in plan.nodes}
  for node in plan.nodes:
    for callee in node.callees:
      callers[callee].add(node.name)
  return [
    (
      _path(node),
      node.name if '/' not in node.name else '',
      node.unit if node.unit != node.name else '',
      node.service,
      frozenset(node.callees),
      frozenset(callers[node.name]),
      node.resources,
      node.restart,
      node.ends_program,
    )
    for node in plan.nodes
  ]


def _path(node: NodePlan) -> str:
  return node.name.rpartition('/')[0]
