"""A plan as a Mermaid flowchart, with repeated nodes drawn once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from callsheet.programs.plan import NodePlan, Plan

MANY = 4


@dataclass(frozen=True)
class _Box:
  id: str
  members: tuple[NodePlan, ...]

  def draw(self) -> str:
    first = self.members[0]
    count = len(self.members)
    title = first.name if count == 1 else f'{_path(first)} x{count}'
    if first.resources.hosts > 1:
      title += f', {first.resources.hosts} hosts'
    return f'{self.id}["{_safe(title)}<br/>{_safe(first.service)}"]'


def mermaid(plan: Plan) -> str:
  """The plan as a 'flowchart LR': an arrow goes from a caller to whom it calls.

  More than four nodes of a group that are alike (service, callees, callers, resources,
  restart) become one box, 'actor x8'. Nodes that share a process share a frame; the
  processes that run one node are one box.
  """
  plan = _led(plan)
  boxes = _boxes(plan)
  box_of = {node.name: box.id for box in boxes for node in box.members}
  units = {name: members for name, members in plan.units().items() if len(members) > 1}
  lines = ['flowchart LR']
  for index, (unit, members) in enumerate(units.items()):
    lines.append(f'  subgraph u{index}["{_safe(unit)}"]')
    lines += [f'    {box.draw()}' for box in boxes if box.members[0] in members]
    lines.append('  end')
  lines += [f'  {box.draw()}' for box in boxes if box.members[0].unit not in units]
  arrows = {
    f'  {box_of[node.name]} --> {box_of[callee]}': None
    for node in plan.nodes
    for callee in node.callees
  }
  return '\n'.join([*lines, *arrows, ''])


def _led(plan: Plan) -> Plan:
  """The plan without the further processes of its nodes."""
  return Plan(
    plan.name, tuple(n for n in plan.nodes if n.spmd is None or n.spmd.rank == 0)
  )


def _boxes(plan: Plan) -> list[_Box]:
  alike: dict[Hashable, tuple[NodePlan, ...]] = {}
  for node, key in zip(plan.nodes, _likeness(plan), strict=True):
    alike[key] = (*alike.get(key, ()), node)
  groups: list[tuple[NodePlan, ...]] = []
  for members in alike.values():
    whole = len(members) > MANY
    groups += [members] if whole else [(member,) for member in members]
  position = {node.name: index for index, node in enumerate(plan.nodes)}
  groups.sort(key=lambda members: position[members[0].name])
  return [_Box(f'n{index}', members) for index, members in enumerate(groups)]


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


def _safe(text: str) -> str:
  marks = {'&': '&amp;', '"': '&quot;', '<': '&lt;', '>': '&gt;'}
  return ''.join(marks.get(letter, letter) for letter in text)
