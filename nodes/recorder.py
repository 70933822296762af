"""What a run has to show: its newest figures, and all of them in files."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from callsheet.nodes.counter import Counter
from callsheet.nodes.replay import Replay

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
  'actor/return',
  'actor/parameter_age',
  'learner/loss',
  'evaluator/return',
  'evaluator/best_return',
  'evaluator/actor_steps',
)
_RATES = ('actor_steps', 'learner_steps')


class Recorder:
  """Collects figures from every node, and writes a row of them each period.

  Args:
    directory: gets `metrics.jsonl` and `metrics.csv`; None writes nothing.
    counter: its counts are in every row, the steps per second with them.
    replay: its statistics are in every row.
    period: seconds between two rows.
  """

  def __init__(
    self, directory: str | None, counter: Counter, replay: Replay, period: float = 1.0
  ) -> None:
    self._counter, self._replay, self._period = counter, replay, period
    self._lock = threading.Lock()
    self._figures: dict[str, dict[int, float]] = defaultdict(dict)
    self._started = time.monotonic()
    self._row: Row = {}
    self._directory = directory
    if directory is not None:
      os.makedirs(directory, exist_ok=True)

  def record(self, role: str, figures: Mapping[str, float], index: int = 0) -> None:
    """Takes in a node's newest figures.

    Args:
      role: what the node is, 'actor'; the figure `loss` of a learner is shown as
        `learner/loss`.
      figures: by name.
      index: which of several nodes of this role; what is shown is their mean.
    """
    with self._lock:
      for name, figure in figures.items():
        self._figures[f'{role}/{name}'][index] = float(figure)

  def latest(self) -> Row:
    """The newest row; empty before the first."""
    with self._lock:
      return dict(self._row)

  def run(self, stop: threading.Event) -> None:
    """Writes a row each period until the stop, and one more then."""
    while not stop.wait(self._period):
      self._write()

  def close(self) -> None:
    """Writes the last row."""
    self._write()

  def _write(self) -> None:
    row = self._next_row()
    with self._lock:
      self._row = row
    if self._directory is None:
      return
    with open(os.path.join(self._directory, 'metrics.jsonl'), 'a') as lines:
      lines.write(json.dumps(row) + '\n')
    path = os.path.join(self._directory, 'metrics.csv')
    new = not os.path.exists(path)
    with open(path, 'a', newline='') as table:
      writer = csv.DictWriter(table, COLUMNS, extrasaction='ignore')
      if new:
        writer.writeheader()
      writer.writerow(row)

  def _next_row(self) -> Row:
    with self._lock:
      before = self._row
      means = {
        name: sum(by_index.values()) / len(by_index)
        for name, by_index in self._figures.items()
      }
    counts = self._counter.counts()
    seconds = time.monotonic() - self._started
    row: Row = {'seconds': seconds, **counts}
    for name in _RATES:
      gained = counts.get(name, 0) - before.get(name, 0)
      row[f'{name}_per_second'] = gained / (seconds - before.get('seconds', 0.0))
    for table, statistics in self._replay.statistics().items():
      figures = {
        'samples_per_insert': statistics.samples_per_insert,
        'replay_size': statistics.size,
        'replay_credit': statistics.credit,
        'replay_state': statistics.state,
      }
      # One table needs no name; of several each figure has its own.
      single = 'samples_per_insert' not in row
      row.update(
        {name if single else f'{name}/{table}': figures[name] for name in figures}
      )
    row.update(means)
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
  """JSON has no nan or infinity."""
  return None if isinstance(value, float) and not math.isfinite(value) else value
