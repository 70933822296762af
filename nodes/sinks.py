"""Where rows of figures go beside the files of the run: one protocol for all.

A `SinkOptions` is declared with the program, travels to the recorder, and opens a
`Sink` there. Each sink has a thread of its own and a queue: one that hangs, fails or
fills up is dropped with a line in the log, and the run goes on.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from callsheet.errors import UsageError
from callsheet.outcomes import Outcome

# Rows that a sink may be behind: ten minutes of them.
_MOST_BEHIND = 600
# Seconds in which all sinks together have to finish; a node that stops has ten.
_PATIENCE = 8.0

Figures = Mapping[str, Any]


class Sink(Protocol):
  """Takes rows, one after the other, in one thread."""

  def append(self, row: Figures) -> None:
    """Takes one row: numbers, texts and None by name, as `Recorder` makes them."""

  def finish(self, outcome: Outcome) -> None:
    """Takes in how the run has ended, and gives everything back."""


class SinkOptions(Protocol):
  """A sink that is declared: frozen, and picklable."""

  @property
  def name(self) -> str:
    """For people."""

  def open(self) -> Sink:
    """Opens it, in the recorder's process; may take long, and may raise anything."""


@dataclass(frozen=True)
class _End:
  outcome: Outcome


class Sinks:
  """All of a run; none of them raises, nor holds anybody up.

  Args:
    options: what was declared.
    patience: seconds in which all have to finish.
  """

  def __init__(
    self, options: Iterable[SinkOptions], patience: float = _PATIENCE
  ) -> None:
    self._feeders = [_Feeder(each) for each in options]
    self._patience = patience

  def append(self, row: Figures) -> None:
    """Gives a row to each."""
    for feeder in self._feeders:
      feeder.put(dict(row))

  def finish(self, outcome: Outcome) -> None:
    """Tells each how the run has ended, and waits for them for a while."""
    until = time.monotonic() + self._patience
    for feeder in self._feeders:
      feeder.put(_End(outcome))
    for feeder in self._feeders:
      feeder.join(until - time.monotonic())


class _Feeder:
  """One sink in its thread."""

  def __init__(self, options: SinkOptions) -> None:
    self._options = options
    self._rows: queue.Queue[Figures | _End] = queue.Queue(_MOST_BEHIND)
    self._lock, self._dropped = threading.Lock(), False
    self._thread = threading.Thread(target=self._feed, name=options.name, daemon=True)
    self._thread.start()

  def put(self, item: Figures | _End) -> None:
    if self._dropped:
      return
    try:
      self._rows.put_nowait(item)
    except queue.Full:
      self._drop(f'it is {_MOST_BEHIND} rows behind')

  def join(self, timeout: float) -> None:
    if self._dropped:
      return
    self._thread.join(max(0.0, timeout))
    if self._thread.is_alive():
      self._drop('it has not finished in time')

  def _feed(self) -> None:
    try:
      sink = self._options.open()
      while not isinstance(item := self._rows.get(), _End):
        if self._dropped:
          return
        sink.append(item)
      sink.finish(item.outcome)
    except BaseException as error:  # A service's library may even exit.
      # Of a message of many lines the first says what it is.
      text = str(error).strip().partition('\n')[0]
      self._drop(f'{type(error).__name__}: {text}' if text else type(error).__name__)

  def _drop(self, why: str) -> None:
    with self._lock:
      if self._dropped:
        return
      self._dropped = True
    logging.getLogger(__name__).warning(
      '%s gets no more rows (%s); the run goes on, and so do its files',
      self._options.name,
      why,
    )


def require(module: str, extra: str, what: str) -> None:
  """Raises a `UsageError` that says how to install what a sink needs.

  Args:
    module: that has to be there; it isn't imported.
    extra: of Callsheet's, that installs it.
    what: needs it, for people.
  """
  if importlib.util.find_spec(module) is None:
    raise UsageError(f'{what} needs {module}: pip install "callsheet[{extra}]"')


def steps(row: Figures) -> int:
  """What a curve is drawn over: environment steps, or learner steps if nobody acts."""
  return int(row.get('actor_steps') or row.get('learner_steps') or 0)


def numbers(row: Figures) -> dict[str, float]:
  """The figures of a row that are numbers."""
  return {
    name: value
    for name, value in row.items()
    if isinstance(value, int | float) and not isinstance(value, bool)
  }
