"""Counts that every node of a program shares."""

from __future__ import annotations

import contextlib
import operator
import threading
import uuid
from collections import Counter as Counts
from collections.abc import Mapping
from pathlib import Path

from callsheet.calls import retried
from callsheet.errors import UsageError
from callsheet.nodes import snapshots
from callsheet.nodes.count_journal import CountJournal

# Whose what was added at once is, and what was there before.
_NOBODY = ''


class Counter:
  """Adds up what nodes report; safe to call from many threads.

  `add` counts once for each call, so a caller that lost its answer can't know whether
  to call again. `report` takes what a source has counted in all, so that it counts once
  however often it is sent: a `Tally` does that.

  Args:
    directory: of the run. Restarted on the same one, it goes on counting from what it
      had answered, and from no less than the newest snapshot there; None keeps nothing.
  """

  def __init__(self, directory: str | None = None) -> None:
    self._lock = threading.Lock()
    self._by_source: dict[str, Counts[str]] = {}
    self._counts: Counts[str] = Counts()
    self._journal: CountJournal | None = None
    if directory is not None:
      self._journal = CountJournal(Path(directory, 'counts.jsonl'))
      self._go_on(Path(directory, snapshots.IN_RUN))

  def add(self, **amounts: int) -> dict[str, int]:
    """Adds to counts by name: `counter.add(actor_steps=64, episodes=2)`.

    Returns:
      All counts, those that were just added included.

    Raises:
      TypeError: an amount is no whole number; nothing was added.
    """
    whole = {name: _whole('add', name, amount) for name, amount in amounts.items()}
    with self._lock:
      self._add(_NOBODY, whole)
      return dict(self._counts)

  def report(self, source: str, totals: Mapping[str, int]) -> dict[str, int]:
    """Takes in what a source has counted since it began.

    Args:
      source: tells it from all others, in this run and those before it.
      totals: by name; one that is less than was reported before changes nothing.

    Returns:
      All counts.

    Raises:
      TypeError: a total is no whole number; nothing was taken in.
    """
    whole = {name: _whole('report', name, total) for name, total in totals.items()}
    with self._lock:
      known = self._by_source.get(source, Counts())
      more = {name: total - known.get(name, 0) for name, total in whole.items()}
      self._add(source, {name: amount for name, amount in more.items() if amount > 0})
      return dict(self._counts)

  def counts(self) -> dict[str, int]:
    """All counts so far; a name that was never added is missing."""
    with self._lock:
      return dict(self._counts)

  def close(self) -> None:
    """Lets go of its file; of a full disk it waits a moment for room."""
    with self._lock:
      if self._journal is not None:
        self._journal.finish(self._by_source)

  def _add(self, source: str, amounts: Mapping[str, int]) -> None:
    of = self._by_source.setdefault(source, Counts())
    of.update(amounts)
    self._counts.update(amounts)
    if self._journal is not None:
      self._journal.append(source, of, self._by_source)

  def _go_on(self, directory: Path) -> None:
    assert self._journal is not None
    for source, totals in self._journal.read().items():
      self._by_source[source] = Counts(totals)
      self._counts.update(totals)
    # Were all of those damaged, what was counted would still be known.
    with contextlib.suppress(UsageError):
      self._no_less_than(snapshots.newest(directory, part=''))

  def _no_less_than(self, snapshot: snapshots.Snapshot | None) -> None:
    if snapshot is not None:
      counts = snapshot.manifest['counts'].items()
      missing = {name: count - self._counts[name] for name, count in counts}
      missing = {name: count for name, count in missing.items() if count > 0}
      if missing:
        self._add(_NOBODY, missing)


class Tally:
  """What one node counts: reported in total, so that no answer lost counts twice.

  Args:
    counter: where to; a restarted one is waited for.
  """

  def __init__(self, counter: Counter) -> None:
    self._report = retried(counter.report)
    self._source = uuid.uuid4().hex
    self._totals: Counts[str] = Counts()

  def add(self, **amounts: int) -> None:
    """Adds to the counts by name.

    Raises:
      CourierError: the counter did not come back in time; the next call counts all.
    """
    self._totals.update(amounts)
    self._report(self._source, dict(self._totals))


def _whole(method: str, name: str, amount: object) -> int:
  # NumPy's integers become Python's, which go into every file.
  try:
    return operator.index(amount)  # type: ignore[arg-type]
  except TypeError:
    raise TypeError(
      f'Counter.{method}({name}={amount!r}): expected an int, got a '
      f'{type(amount).__name__}'
    ) from None
