"""How long a node may say nothing before it counts as hung."""

from __future__ import annotations

import math
from dataclasses import dataclass

from callsheet.errors import GraphError


@dataclass(frozen=True)
class Silence:
  """Limits after which a node counts as hung: it is ended, and its restart applies.

  A node that waits is not silent: for a limiter, for a batch to fill, for a peer that
  is being restarted.

  Attributes:
    process: seconds without a heartbeat of its process, which is stopped then, or in
      code that never gives the interpreter back. None for no limit. By default those
      who call it have half of their deadline left to wait for its next life.
    run: seconds in which the node's `run` has made no call to another node, has none
      under way and has answered none; likewise in which a handler that isn't
      `@blocking` has neither. For a `run` that makes such calls all the time; None,
      the default, for any other.

  Raises:
    GraphError: a limit that is no number above 0.
  """

  process: float | None = 30.0
  run: float | None = None

  def __post_init__(self) -> None:
    for name in ('process', 'run'):
      limit = getattr(self, name)
      if limit is not None and not 0 < limit < math.inf:
        raise GraphError(
          f'Silence({name}={limit!r}): {name} must be seconds above 0, or None for no '
          'limit'
        )

  def shortest(self) -> float | None:
    """The smaller of the limits; None if there is none."""
    return min((x for x in (self.process, self.run) if x is not None), default=None)
