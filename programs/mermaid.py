"""A plan as a Mermaid flowchart, with repeated nodes drawn once."""

from __future__ import annotations

from callsheet.programs.boxes import Box, drawing
from callsheet.programs.plan import Plan


def mermaid(plan: Plan) -> str:
  """The plan as a 'flowchart LR': an arrow goes from a caller to whom it calls.

  See `drawing` for what becomes a box, 'actor x8', and what a frame.
  """
  drawn = drawing(plan)
  lines = ['flowchart LR']
  for index, (unit, boxes) in enumerate(drawn.frames):
    lines.append(f'  subgraph u{index}["{_safe(unit)}"]')
    lines += [f'    {_box(box)}' for box in boxes]
    lines.append('  end')
  lines += [f'  {_box(box)}' for box in drawn.others]
  lines += [f'  {caller} --> {callee}' for caller, callee in drawn.arrows]
  return '\n'.join([*lines, ''])


def _box(box: Box) -> str:
  return f'{box.id}["{_safe(box.title)}<br/>{_safe(box.service)}"]'


def _safe(text: str) -> str:
  marks = {'&': '&amp;', '"': '&quot;', '<': '&lt;', '>': '&gt;'}
  return ''.join(marks.get(letter, letter) for letter in text)
