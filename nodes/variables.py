"""Parameters on their way from a learner to those who act with them."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import jax

from callsheet.agents.base import Params
from callsheet.calls import call_async
from callsheet.errors import ConnectionLost


class Parameters(NamedTuple):
  """One version of the parameters.

  Attributes:
    version: the learner's step that made them; it grows, even over a learner's restart
      from an earlier state, whose steps count on from there.
    params: a pytree of numpy arrays.
  """

  version: int
  params: Any


class ParameterSource(Protocol):
  """What has parameters to give: a learner."""

  def parameters(self, known: int = -1) -> Parameters | None:
    """The newest parameters, or None if `known` is their version already."""
    ...


class VariableClient:
  """Keeps a copy of the newest parameters on the device, pulled in the background.

  A pull that is lost with its learner is asked for once more, of the restarted one;
  whatever else goes wrong with a pull is raised by the next call. For one thread.

  Args:
    source: the learner.
    period: seconds from the beginning of one pull to that of the next.
  """

  def __init__(self, source: ParameterSource, period: float) -> None:
    self._source, self._period = source, period
    # Not 0: that is when the machine was started, which may be a moment ago.
    self._asked_at = self._newest_at = -math.inf
    self._asked: Future[Parameters | None] | None = None
    self._version = -1
    self._params: Params = None

  @property
  def version(self) -> int:
    """The version held; -1 before the first."""
    return self._version

  def age(self) -> float:
    """Seconds since the parameters held were known to be the newest; inf before."""
    return time.monotonic() - self._newest_at

  def params(self) -> Params:
    """The parameters held, after asking for newer ones if it is time to.

    Waits for the first version; from then on only for a learner that was lost.
    """
    if self._asked is None and time.monotonic() - self._asked_at >= self._period:
      self._ask()
    if self._asked is not None and (self._asked.done() or self._version < 0):
      self._take(self._asked)
    return self._params

  def refresh(self) -> Params:
    """The newest parameters that the source has, waiting for its answer."""
    if self._asked is not None:
      # Asked a while ago: by now there may be newer ones.
      self._take(self._asked)
    self._take(self._ask())
    return self._params

  def _ask(self) -> Future[Parameters | None]:
    self._asked_at = time.monotonic()
    self._asked = call_async(self._source.parameters, self._version)
    return self._asked

  def _take(self, asked: Future[Parameters | None]) -> None:
    self._asked = None
    try:
      newer = asked.result()
    except ConnectionLost:
      newer = self._source.parameters(self._version)
    self._newest_at = self._asked_at
    if newer is not None:
      self._version, self._params = newer.version, jax.device_put(newer.params)
