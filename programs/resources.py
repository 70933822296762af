"""What a node needs, and what happens when it ends: declared here, met by a backend."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from callsheet.errors import GraphError


@dataclass(frozen=True)
class Resources:
  """What one node needs; a backend that can't give it says so before it starts.

  Attributes:
    cpus: cores; fractions share one.
    memory_gb: main memory in 10^9 bytes; None asks for nothing in particular.
    gpus: accelerators that the node alone sees.
    tpu: the TPU type, 'v5e'.
    tpu_topology: its shape, '2x2' or '2x2x4'; needs `tpu`.
    hosts: processes that run the node together as one SPMD program, each of which gets
      all the rest.
    environment: variables set for the node's process.
    node_selector: what a host must be, in the launch engine's own terms:
      {'cloud.google.com/gke-nodepool': 'cpu'}, {'constraint': 'avx512'}, {'host': 'a'}.

  Raises:
    GraphError: an amount that can't be.
  """

  cpus: float = 1
  memory_gb: float | None = None
  gpus: int = 0
  tpu: str | None = None
  tpu_topology: str | None = None
  hosts: int = 1
  environment: Mapping[str, str] = field(default_factory=dict, hash=False)
  node_selector: Mapping[str, str] = field(default_factory=dict, hash=False)

  def __post_init__(self) -> None:
    object.__setattr__(self, 'environment', dict(self.environment))
    object.__setattr__(self, 'node_selector', dict(self.node_selector))
    least = {'cpus': 0, 'gpus': 0, 'hosts': 1}
    for name, limit in least.items():
      if not getattr(self, name) >= limit:
        raise GraphError(
          f'Resources({name}={getattr(self, name)!r}): {name} must be at least {limit}'
        )
    if self.memory_gb is not None and not self.memory_gb > 0:
      raise GraphError(
        f'Resources(memory_gb={self.memory_gb!r}): memory_gb must be above 0, or None'
      )
    if self.tpu_topology is not None:
      if self.tpu is None:
        raise GraphError(
          f'Resources(tpu_topology={self.tpu_topology!r}) names no TPU type: '
          f"Resources(tpu='v5e', tpu_topology={self.tpu_topology!r})"
        )
      if not re.fullmatch(r'\d+(x\d+)*', self.tpu_topology):
        raise GraphError(
          f'Resources(tpu_topology={self.tpu_topology!r}) is no shape: '
          f"Resources(tpu={self.tpu!r}, tpu_topology='2x2')"
        )


def _delay(backoff: float, restarts: int) -> float:
  return min(_LONGEST, backoff * 2.0 ** min(restarts, 64))


_LONGEST = 30.0


@dataclass(frozen=True)
class Never:
  """The node is not restarted: its failure ends the program."""

  forgiven_after: ClassVar[float] = math.inf

  def allows(self, failed: bool, restarts: int) -> bool:
    """Whether a node that ended may start again; see `OnFailure.allows`."""
    return False

  def delay(self, restarts: int) -> float:
    """Seconds to wait before the next start."""
    return 0.0


@dataclass(frozen=True)
class OnFailure:
  """The node is restarted when it failed.

  Attributes:
    max_restarts: one failure more ends the program.
    backoff: seconds before the first restart; each later wait doubles, up to 30 s.
    forgiven_after: seconds of a life after which the restarts before it no longer
      count; a run of days may lose its nodes now and then.
  """

  max_restarts: int = 10
  backoff: float = 1.0
  forgiven_after: float = 600.0

  def __post_init__(self) -> None:
    _check(self, self.max_restarts, self.backoff)

  def allows(self, failed: bool, restarts: int) -> bool:
    """Whether a node that ended may start again.

    Args:
      failed: it raised or its process died, rather than returned.
      restarts: how often it was restarted so far.
    """
    return failed and restarts < self.max_restarts

  def delay(self, restarts: int) -> float:
    """Seconds to wait before the next start, after so many restarts."""
    return _delay(self.backoff, restarts)


@dataclass(frozen=True)
class Always:
  """The node is restarted however it ended, unless the program is stopping.

  Attributes:
    max_restarts: None for no limit.
    backoff: seconds before the first restart; each later wait doubles, up to 30 s.
    forgiven_after: seconds of a life after which the restarts before it no longer
      count; a run of days may lose its nodes now and then.
  """

  max_restarts: int | None = None
  backoff: float = 1.0
  forgiven_after: float = 600.0

  def __post_init__(self) -> None:
    _check(self, self.max_restarts, self.backoff)

  def allows(self, failed: bool, restarts: int) -> bool:
    """Whether a node that ended may start again; see `OnFailure.allows`."""
    return self.max_restarts is None or restarts < self.max_restarts

  def delay(self, restarts: int) -> float:
    """Seconds to wait before the next start, after so many restarts."""
    return _delay(self.backoff, restarts)


def _check(policy: object, max_restarts: int | None, backoff: float) -> None:
  if max_restarts is not None and max_restarts < 0:
    raise GraphError(f'{policy}: max_restarts must be at least 0')
  if not 0 <= backoff < float('inf'):
    raise GraphError(f'{policy}: backoff must be at least 0 seconds, and finite')


Restart: TypeAlias = Never | OnFailure | Always
