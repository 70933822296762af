"""What a backend tells the supervisor about its nodes."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from callsheet.errors import ConnectionLost, DeadlineExceeded, Unavailable, UsageError


@dataclass(frozen=True)
class Failure:
  """Why a node failed.

  Attributes:
    node: its name.
    reason: one line.
    traceback: empty where the node had no chance to give one.
    blames: the node whose silence it died of; empty if the fault is its own.
    refused: it was a usage error.
  """

  node: str
  reason: str
  traceback: str = ''
  blames: str = ''
  refused: bool = False

  @classmethod
  def of(cls, node: str, error: BaseException, blames: str = '') -> Failure:
    """The failure that this exception is; a usage error's one line says it all."""
    if isinstance(error, UsageError):
      return cls(node, str(error), refused=True)
    silence = isinstance(error, ConnectionLost | DeadlineExceeded | Unavailable)
    return cls(
      node=node,
      reason=traceback.format_exception_only(type(error), error)[-1].strip(),
      traceback=''.join(
        traceback.format_exception(type(error), error, error.__traceback__)
      ),
      blames=getattr(error, 'peer', '') if silence else blames,
    )


@dataclass(frozen=True)
class Ready:
  """The node's service is up; `runs` if it has a loop of its own."""

  node: str
  runs: bool


@dataclass(frozen=True)
class Finished:
  """The node's `run` returned; its service is still up."""

  node: str


@dataclass(frozen=True)
class Failed:
  """The node's constructor, `run` or `close` raised."""

  node: str
  failure: Failure


@dataclass(frozen=True)
class Stopped:
  """The node is closed."""

  node: str


@dataclass(frozen=True)
class Exited:
  """Nothing of the unit is left; `reason` says how it went if it was not in order."""

  unit: str
  reason: str = ''


@dataclass(frozen=True)
class Beat:
  """The unit's process is there and runs Python.

  Attributes:
    unit: which.
    quiet: seconds for which each node that limits it has been silent, see `Silence`.
  """

  unit: str
  quiet: Mapping[str, float]


Event = Ready | Finished | Failed | Stopped | Exited | Beat
