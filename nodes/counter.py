"""Counts that every node of a program shares."""

from __future__ import annotations

import operator
import threading
from collections import Counter as Counts


class Counter:
  """Adds up what nodes report; safe to call from many threads."""

  def __init__(self) -> None:
    self._counts: Counts[str] = Counts()
    self._lock = threading.Lock()

  def add(self, **amounts: int) -> dict[str, int]:
    """Adds to counts by name: `counter.add(actor_steps=64, episodes=2)`.

    Returns:
      All counts, those that were just added included.

    Raises:
      TypeError: an amount is no whole number; nothing was added.
    """
    whole = {name: _whole(name, amount) for name, amount in amounts.items()}
    with self._lock:
      self._counts.update(whole)
      return dict(self._counts)

  def counts(self) -> dict[str, int]:
    """All counts so far; a name that was never added is missing."""
    with self._lock:
      return dict(self._counts)


def _whole(name: str, amount: object) -> int:
  # NumPy's integers become Python's, which go into every file.
  try:
    return operator.index(amount)  # type: ignore[arg-type]
  except TypeError:
    raise TypeError(
      f'Counter.add({name}={amount!r}): expected an int, got a {type(amount).__name__}'
    ) from None
