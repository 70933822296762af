"""Rows of figures: the rates of what is counted, and the files that keep them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]

# The columns of metrics.csv; metrics.jsonl has whatever was recorded.
COLUMNS = (
  'seconds',
  'actor_steps',
  'actor_steps_per_second',
  'episodes',
  'learner_steps',
  'learner_steps_per_second',
  'samples_per_insert',
  'replay_size',
  'replay_credit',
  'replay_state',
  'replay_writers_blocked_seconds',
  'replay_samplers_blocked_seconds',
  'replay_sample_age',
  'replay_bytes',
  'actor/return',
  'actor/parameter_age',
  'learner/loss',
  'evaluator/return',
  'evaluator/best_return',
  'evaluator/actor_steps',
)


class Rates:
  """How much counts grow by, per second, over a window of the last observations.

  A count that is smaller than before has begun again from zero, with its node.

  Args:
    names: of the counts.
    window: observations that a rate looks back on, at least 1.
  """

  def __init__(self, names: Sequence[str], window: int) -> None:
    self._names = tuple(names)
    self._before: tuple[float, Mapping[str, int]] | None = None
    self._gains: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=window)

  def observe(self, seconds: float, counts: Mapping[str, int]) -> dict[str, float]:
    """Takes in the counts of a moment.

    Args:
      seconds: the moment, later than the last one.
      counts: one that is missing is 0.

    Returns:
      `{name}_per_second` of each; nothing the first time.
    """
    now = {name: counts.get(name, 0) for name in self._names}
    if self._before is not None:
      then, before = self._before
      gained = {
        name: now[name] - (before[name] if now[name] >= before[name] else 0)
        for name in self._names
      }
      self._gains.append((seconds - then, gained))
    self._before = seconds, now
    span = sum(passed for passed, _ in self._gains)
    if span <= 0:
      return {}
    return {
      f'{name}_per_second': sum(gained[name] for _, gained in self._gains) / span
      for name in self._names
    }


class MetricsFiles:
  """`metrics.jsonl` with all of every row, and `metrics.csv` with its `COLUMNS`.

  What is in the folder already is gone on with, but for a last line that a crash cut
  off: that one is removed.

  Args:
    directory: where they are; made if it is missing.
  """

  def __init__(self, directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
    self._lines = os.path.join(directory, 'metrics.jsonl')
    self._table = os.path.join(directory, 'metrics.csv')
    for path in (self._lines, self._table):
      _cut_half_line(path)

  def last_seconds(self) -> float:
    """`seconds` of the last row; 0 if there is none."""
    if not os.path.exists(self._lines):
      return 0.0
    with open(self._lines) as file:
      last = deque(file, maxlen=1)
    return float(json.loads(last[0])['seconds']) if last else 0.0

  def append(self, row: Row) -> None:
    """Writes one more row to both; its values are what JSON can hold.

    Raises:
      OSError: it can't be written, such as to a full disk; no half of it is left.
    """
    _append(self._lines, json.dumps(row, allow_nan=False) + '\n')
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, extrasaction='ignore')
    if not os.path.exists(self._table) or not os.path.getsize(self._table):
      writer.writeheader()
    writer.writerow(row)
    _append(self._table, text.getvalue())


def _append(path: str, text: str) -> None:
  with open(path, 'ab', buffering=0) as file:
    before = file.tell()
    try:
      data = text.encode()
      while data:
        data = data[file.write(data) :]
    except OSError:
      file.truncate(before)
      raise


def _cut_half_line(path: str) -> None:
  if not os.path.exists(path):
    return
  with open(path, 'rb+') as file:
    whole = file.read().rfind(b'\n') + 1
    file.truncate(whole)
