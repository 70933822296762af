"""What a worker must hold to sign on; it travels where nobody else can read it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

# The units of one job, by their index, with commas between them.
UNITS = 'CALLSHEET_UNITS'


@dataclass(frozen=True)
class Ticket:
  """A worker's way to the desk; never on a command line, for it holds the secret.

  Attributes:
    desk: `tcp:host:port` of the launcher's desk.
    secret: the program's own, in hexadecimal digits.
    unit: what to be.
    life: which of the unit's lives; None for the next that nobody has.
    patience: seconds without the desk after which the worker ends itself.
    arrival: seconds that the desk may take to be there; its patience by default.
    environment: variables to set before anything numerical is imported.
    path: entries of `sys.path`.
  """

  desk: str
  secret: str = field(repr=False)
  unit: str
  life: int | None = None
  patience: float = 60.0
  arrival: float | None = None
  environment: Mapping[str, str] = field(default_factory=dict)
  path: tuple[str, ...] = ()

  def dumps(self) -> str:
    """The ticket as one line."""
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def loads(cls, line: str) -> Ticket:
    """Reads what `dumps` wrote."""
    fields = json.loads(line)
    return cls(**{**fields, 'path': tuple(fields['path'])})

  def of_this_pod(self) -> Ticket:
    """Which unit, where a job's pods share their ticket and are numbered."""
    if UNITS not in os.environ:
      return self
    units = os.environ[UNITS].split(',')
    index = int(os.environ.get('JOB_COMPLETION_INDEX', '0'))
    return dataclasses.replace(self, unit=units[index])


def carried_path() -> tuple[str, ...]:
  """What of `sys.path` a worker needs as well: all but the interpreter's own.

  The interpreter over there has its own; another version must not get this one's.
  """
  own = tuple(os.path.join(prefix, '') for prefix in (sys.prefix, sys.base_prefix))
  entries = (os.path.abspath(entry) for entry in sys.path)
  return tuple(entry for entry in entries if not entry.startswith(own))
