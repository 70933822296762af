"""A plan as a graph for Graphviz, with repeated nodes drawn once."""

from __future__ import annotations

from callsheet.programs.boxes import Box, drawing
from callsheet.programs.plan import Plan


def dot(plan: Plan) -> str:
  """The plan in the DOT language: an edge goes from a caller to whom it calls.

  See `drawing` for what becomes a box, 'actor x8', and what a frame. The node that ends
  the program has a double line around it.
  """
  drawn = drawing(plan)
  lines = [
    f'digraph {_quoted(plan.name)} {{',
    '  rankdir=LR;',
    '  node [shape=box, style=rounded, fontname="sans-serif"];',
  ]
  for index, (unit, boxes) in enumerate(drawn.frames):
    # Graphviz draws a frame around what is called a cluster.
    lines.append(f'  subgraph cluster_{index} {{')
    lines.append(f'    label={_quoted(unit)};')
    lines += [f'    {_box(box)}' for box in boxes]
    lines.append('  }')
  lines += [f'  {_box(box)}' for box in drawn.others]
  lines += [f'  {caller} -> {callee};' for caller, callee in drawn.arrows]
  return '\n'.join([*lines, '}', ''])


def _box(box: Box) -> str:
  ends = ', peripheries=2' if box.members[0].ends_program else ''
  label = _quoted(f'{box.title}\n{box.service}')
  return f'{box.id} [label={label}{ends}];'


def _quoted(text: str) -> str:
  marks = {'"': '\\"', '\\': '\\\\', '\n': '\\n'}
  return '"' + ''.join(marks.get(letter, letter) for letter in text) + '"'
