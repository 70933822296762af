"""Parameters on their way from a learner to those who act with them."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import jax

from callsheet.agents.base import Params
from callsheet.calls import call_async


class Parameters(NamedTuple):
  """One version of the parameters.

  Attributes:
    version: grows with every version; the learner's step that made them.
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

  Args:
    source: the learner.
    period: seconds between two pulls.
  """

  def __init__(self, source: ParameterSource, period: float) -> None:
    self._source, self._period = source, period
    self._asked_at = 0.0
    self._newest_at = 0.0
    self._asked: Future[Parameters | None] | None = None
    self._version = -1
    self._params: Params = None

  @property
  def version(self) -> int:
    """The version held; -1 before the first."""
    return self._version

  def age(self) -> float:
    """Seconds since the held parameters were last known to be the newest."""
    return time.monotonic() - self._newest_at

  def params(self) -> Params:
    """The parameters held, after asking for newer ones if it is time to.

    Waits for the first version; from then on never.
    """
    if self._asked is None and time.monotonic() - self._asked_at >= self._period:
      self._ask()
    if self._asked is not None and (self._asked.done() or self._version < 0):
      self._take()
    return self._params

  def refresh(self) -> Params:
    """The newest parameters that the source has, waiting for its answer."""
    if self._asked is None:
      self._ask()
    self._take()
    return self._params

  def _ask(self) -> None:
    self._asked_at = time.monotonic()
    self._asked = call_async(self._source.parameters, self._version)

  def _take(self) -> None:
    assert self._asked is not None
    newer = self._asked.result()
    self._asked, self._newest_at = None, self._asked_at
    if newer is not None:
      self._version, self._params = newer.version, jax.device_put(newer.params)
