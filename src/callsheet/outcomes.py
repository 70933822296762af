"""How a program ends, for the services that want to know."""

from __future__ import annotations

from typing import Literal, Protocol

Outcome = Literal['finished', 'failed', 'interrupted']
"""It came to its own end, a node of it failed for good, or it was stopped before."""


class Concluding(Protocol):
  """A service with this method is told how the program ends, right before its stop.

  Whoever it is called by has been stopped by then, and has closed. It isn't told where
  its process is killed, or the launcher is.
  """

  def conclude(self, outcome: Outcome) -> None:
    """Takes in the outcome; `close` follows soon."""
