"""Learning curves, read from a growing `metrics.jsonl`, never whole."""

from __future__ import annotations

import json
import os
from typing import Any

# What is drawn, of what a row has.
FIGURES = (
  'seconds',
  'actor_steps',
  'learner_steps',
  'evaluator/actor_steps',
  'evaluator/learner_steps',
  'evaluator/return',
  'actor/return',
  'actor_steps_per_second',
  'learner_steps_per_second',
  'learner/loss',
)
_MOST = 800  # rows kept, however long the run


class Curves:
  """The rows of a run, thinned out evenly as they become many.

  Args:
    path: of `metrics.jsonl`, which need not be there yet.
  """

  def __init__(self, path: str) -> None:
    self._path = path
    self._forget()

  def _forget(self) -> None:
    self._offset, self._seen, self._stride = 0, 0, 1
    self._rows: list[list[Any]] = []
    self._last: list[Any] | None = None

  def read(self) -> dict[str, Any]:
    """Every kept row and the newest: `{'figures': names, 'rows': [[...], ...]}`."""
    try:
      if os.path.getsize(self._path) < self._offset:
        self._forget()
      with open(self._path, 'rb') as file:
        file.seek(self._offset)
        for line in file:
          if not line.endswith(b'\n'):
            break
          self._offset += len(line)
          self._take(line)
    except OSError:
      pass  # None yet.
    newest = [] if self._last is None or self._last in self._rows[-1:] else [self._last]
    return {'figures': FIGURES, 'rows': [*self._rows, *newest]}

  def _take(self, line: bytes) -> None:
    try:
      row = json.loads(line)
      kept = [row.get(figure) for figure in FIGURES]
    except (ValueError, AttributeError):
      return
    self._last = kept
    if self._seen % self._stride == 0:
      self._rows.append(kept)
    self._seen += 1
    if len(self._rows) > _MOST:
      self._rows, self._stride = self._rows[::2], self._stride * 2
