"""What is left to say of a run that has ended: a summary and its learning curve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def has_begun(row: Row) -> bool:
  """Whether an actor or the learner had stepped by then."""
  return bool(row.get('actor_steps')) or has_learnt(row)


def has_learnt(row: Row) -> bool:
  """Whether the learner had stepped by then."""
  return bool(row.get('learner_steps'))


def summary(directory: str, rows: Sequence[Row], target_return: float | None) -> str:
  """A few lines: how far it came, how fast, and what lies where.

  Args:
    directory: the run's folder.
    rows: its metrics, oldest first.
    target_return: what it was to reach, if anything.
  """
  if not rows:
    return f'ended before there were figures; what there is: {directory}'
  last = rows[-1]
  seconds = max(last['seconds'], 1e-9)
  steps, updates = last.get('actor_steps', 0), last.get('learner_steps', 0)
  best = last.get('evaluator/best_return')
  lines = [_outcome(last, target_return)]
  learnt = f'{updates:,} learner steps ({updates / seconds:,.0f}/s)'
  if steps:
    learnt = (
      f'{steps:,} environment steps ({steps / seconds:,.0f}/s), {learnt} in '
      f'{seconds:.0f} s; samples per insert '
      f'{last.get("samples_per_insert") or float("nan"):.1f}'
    )
  else:
    learnt = f'{learnt} in {seconds:.0f} s, from a dataset'
  lines.append(f'  {learnt}')
  lines.append(f'  {", ".join(sorted(os.listdir(directory)))}: {directory}')
  if best is not None:
    lines.append(f'  play it: callsheet eval {directory}')
  return '\n'.join(lines)


def _outcome(last: Row, target_return: float | None) -> str:
  result = last.get('evaluator/return')
  if result is None:
    return 'ended before the first evaluation'
  if target_return is None:
    return f'ended with a mean return of {result:.1f}'
  if result >= target_return:
    return f'solved: mean return {result:.1f}, target {target_return:g}'
  best = last['evaluator/best_return']
  return (
    f'not solved: mean return {result:.1f} (best {best:.1f}), target {target_return:g}'
  )


def draw_curve(directory: str, rows: Sequence[Row], title: str) -> None:
  """Draws the returns into `curve.png`, over environment steps.

  Where nobody has acted, they are over learner steps.
  """
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout='constrained')
  acted = any(row.get('actor_steps') for row in rows)
  lines = [('evaluator/learner_steps', 'evaluator/return', 'evaluated')]
  if acted:
    lines = [
      ('actor_steps', 'actor/return', 'acting'),
      ('evaluator/actor_steps', 'evaluator/return', 'evaluated'),
    ]
  for steps, returns, label in lines:
    points = {row[steps]: row[returns] for row in rows if row.get(returns) is not None}
    axes.plot(list(points), list(points.values()), marker='.', label=label)
  steps = 'environment steps' if acted else 'learner steps'
  axes.set(xlabel=steps, ylabel='mean return', title=title)
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(os.path.join(directory, 'curve.png'), dpi=120)
  pyplot.close(figure)
