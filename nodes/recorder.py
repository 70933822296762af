"""What a run has to show: its newest figures, and all of them in files."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from callsheet.calls import with_deadline
from callsheet.errors import (
  ConnectionLost,
  CourierError,
  DeadlineExceeded,
  Unavailable,
)
from callsheet.nodes.counter import Counter
from callsheet.nodes.last_writes import last_write
from callsheet.nodes.metrics import MetricsFiles, Rates, Row
from callsheet.nodes.replay import Replay, Sampled
from callsheet.nodes.sharded_replay import joined
from callsheet.nodes.sinks import SinkOptions, Sinks
from callsheet.nodes.table_statistics import TableStatistics
from callsheet.outcomes import Outcome

# In every row, from the first on; a count of another name once it was added to.
_COUNTS = ('actor_steps', 'episodes', 'learner_steps')
_RATES = ('actor_steps', 'learner_steps')
_REPLAY_FIGURES = (
  'inserts_per_second',
  'samples_per_second',
  'waiting_writers',
  'writers_blocked_seconds',
  'waiting_samplers',
  'samplers_blocked_seconds',
  'sample_age',
  'bytes',
)
# Rows that a rate looks back on: the counts arrive in lumps.
_WINDOW = 5
_UNTOLD: Outcome = 'interrupted'
_QUESTION = 3.0  # seconds in which counter and replay answer, or a row is left out
_PAUSE = 0.05  # seconds before a lost question is asked again


def _once(write: Callable[[], None]) -> None:
  write()


class Recorder:
  """Collects figures from every node, and writes a row of them each period.

  A row holds `seconds` since the run began, every count, `actor_steps_per_second` and
  `learner_steps_per_second` over the last five rows (not in the first row), the
  replay's statistics (the first table's as they are, every other one's with
  `/table` behind), and the mean of each figure over those that report it. What isn't
  finite is null. Restarted on the same folder, it goes on with the files and with
  `seconds`, from those of the last row.

  Args:
    directory: gets `metrics.jsonl` and `metrics.csv`; None writes nothing.
    counter: its counts are in every row, the steps per second with them.
    replay: its statistics are in every row.
    period: seconds between two rows.
    sinks: get every row too, and in the end how the run has ended.
  """

  def __init__(
    self,
    directory: str | None,
    counter: Counter,
    replay: Sampled | Sequence[Replay],
    period: float = 1.0,
    sinks: Sequence[SinkOptions] = (),
  ) -> None:
    self._counter, self._replay, self._period = counter, joined(replay), period
    # What they told last.
    self._counts: Mapping[str, int] = {}
    self._tables: Mapping[str, TableStatistics] = {}
    self._lock = threading.Lock()
    self._figures: dict[str, dict[int, float]] = defaultdict(dict)
    self._files = None if directory is None else MetricsFiles(directory)
    last = self._files.last_seconds() if self._files is not None else 0.0
    self._started = time.monotonic() - last
    self._rates = Rates(_RATES, _WINDOW)
    self._row: Row = {}
    # Who isn't told has not seen a clean end.
    self._sinks, self._outcome = Sinks(sinks), _UNTOLD
    self._said = False

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
    """Writes a row each period until the stop."""
    while not stop.wait(self._period):
      # One that is being restarted has no figures now; the next row comes soon.
      with contextlib.suppress(ConnectionLost, Unavailable, DeadlineExceeded):
        self._ask()
        self._write()

  def conclude(self, outcome: Outcome) -> None:
    """Takes in how the program ends, for the sinks; `close` follows."""
    self._outcome = outcome

  def close(self) -> None:
    """Writes the last row, and finishes the sinks.

    Counter and replay may have died with the program: then it has what they last told.
    Of a full disk it waits a moment for room.
    """
    try:
      self._ask_at_last()
      self._write(last_write)
    finally:
      self._sinks.finish(self._outcome)

  def _ask(self) -> None:
    self._counts = with_deadline(self._counter.counts, _QUESTION)()
    self._tables = with_deadline(self._replay.statistics, _QUESTION)()

  def _ask_at_last(self) -> None:
    """Again where an answer was lost, but no longer than one may take."""
    until = time.monotonic() + _QUESTION
    while time.monotonic() < until:
      try:
        return self._ask()
      except ConnectionLost:
        time.sleep(_PAUSE)
      except CourierError:
        return

  def _write(self, attempt: Callable[[Callable[[], None]], None] = _once) -> None:
    row, files = self._next_row(), self._files
    with self._lock:
      self._row = row
    self._sinks.append(row)
    if files is None:
      return
    try:
      attempt(lambda: files.append(row))
      self._said = False
    except OSError as error:
      # A disk that is full has room again some time; the run is worth more than a row.
      if not self._said:
        logging.getLogger(__name__).warning(
          'metrics can not be written (%s); rows are missing until they can',
          error.strerror or error,
        )
      self._said = True

  def _next_row(self) -> Row:
    counts = self._counts
    seconds = time.monotonic() - self._started
    row: Row = {'seconds': seconds, **dict.fromkeys(_COUNTS, 0), **counts}
    row.update(self._rates.observe(seconds, counts))
    for index, (table, statistics) in enumerate(self._tables.items()):
      suffix = f'/{table}' if index else ''
      row[f'samples_per_insert{suffix}'] = statistics.samples_per_insert
      row[f'replay_size{suffix}'] = statistics.size
      row[f'replay_credit{suffix}'] = statistics.credit
      row[f'replay_state{suffix}'] = statistics.state
      for figure in _REPLAY_FIGURES:
        row[f'replay_{figure}{suffix}'] = getattr(statistics, figure)
    with self._lock:
      for name, by_index in self._figures.items():
        row[name] = sum(by_index.values()) / len(by_index)
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
  """JSON has no nan or infinity."""
  return None if isinstance(value, float) and not math.isfinite(value) else value
