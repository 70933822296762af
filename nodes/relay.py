"""Parameters handed on: the inner nodes of a tree between a learner and many actors."""

from __future__ import annotations

import threading
import time

from callsheet.errors import ConnectionLost, UsageError
from callsheet.nodes.variables import Parameters, ParameterSource


class Relay:
  """A source of parameters that has them from another, a learner or a relay.

  It sends each version as often as it has callers, and asks its own source once a
  period, however many they are. Parameters are at most that much older than there.

  Args:
    source: where they come from.
    update_period: seconds between two pulls; only when somebody asks.

  Raises:
    UsageError: the period is negative.
  """

  def __init__(self, source: ParameterSource, *, update_period: float = 0.1) -> None:
    if update_period < 0:
      raise UsageError(f'update_period is {update_period}, expected at least 0 s')
    self._source, self._period = source, update_period
    self._pulling = threading.Lock()
    self._held: Parameters | None = None
    self._asked_at = 0.0

  def parameters(self, known: int = -1) -> Parameters | None:
    """The newest parameters held here, or None if `known` is their version already.

    Whoever comes after the period is over waits for the pull; the others are given
    what there is. Before the first version all wait.

    Raises:
      CourierError: the source could not be asked, and nothing is held.
    """
    held = self._held
    if held is None or self._is_time():
      held = self._pull(wait=held is None)
    return None if held is None or known == held.version else held

  def _is_time(self) -> bool:
    return time.monotonic() - self._asked_at >= self._period

  def _pull(self, wait: bool) -> Parameters | None:
    if not self._pulling.acquire(blocking=wait):
      return self._held
    try:
      if self._held is None or self._is_time():
        asked_at = time.monotonic()
        known = -1 if self._held is None else self._held.version
        try:
          newer = self._source.parameters(known)
        except ConnectionLost:  # Its source was restarted: once more.
          newer = self._source.parameters(known)
        self._asked_at = asked_at
        self._held = self._held if newer is None else newer
      return self._held
    finally:
      self._pulling.release()
