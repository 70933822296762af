"""The status of a running program: one document, gathered in the launcher.

It is `status.json` in the run's folder, written anew every second or so (aside, then
renamed: a reader sees a whole one), and what the page shows. `read(folder)` gives it
back as a `Status`. As JSON it has the fields of the classes below by their names,
tuples as lists; what isn't known, and what is no finite number, is null. Fields may be
added, never renamed or removed; a reader passes over those that it doesn't know.

  {"program": "dqn", "backend": "processes", "state": "running", "time": 1.7e9, ...
   "nodes": [{"name": "learner", "state": "running", "waits": {"text": ...}, ...}],
   "edges": [{"caller": "learner", "callee": "replay", "calls_per_second": 40.0, ...}],
   "bottleneck": "the learner waits for data 71% of the time: ..."}

A document that is older than a few seconds (`time` against now) while its `state` is
'running' belongs to a launcher that was killed or stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from callsheet.errors import UsageError

T = TypeVar('T')

FILE = 'status.json'


@dataclass(frozen=True)
class Shares:
  """How a node's time was spent, in parts of 1 that add up to 1; all 0 if not known.

  Attributes:
    computing: its loop or one of its handlers was at work.
    sending: packing, unpacking or moving messages.
    waiting: for the answer of a call, by 'node.method'.
    idle: none of these: nobody called, or it waits for time to pass.
  """

  computing: float = 0.0
  sending: float = 0.0
  waiting: Mapping[str, float] = field(default_factory=dict)
  idle: float = 0.0

  @property
  def known(self) -> bool:
    """Whether the node was looked at."""
    return self.computing + self.sending + self.idle + sum(self.waiting.values()) > 0


@dataclass(frozen=True)
class Waits:
  """What a node is waiting for.

  Attributes:
    kind: 'start', 'answer' (it is silent), 'call' (of another node), 'limiter' (it is a
      replay, and holds somebody), 'nothing' (it computes), 'callers' (for somebody to
      call it, or for time to pass), 'end' (it has finished); '' where not known.
    text: the same for people, short.
    peer: the node that it waits for; empty if none.
    method: the method of it.
    seconds: how long by now; 0 where not known.
    share: of the last seconds, in parts of 1.
  """

  kind: str = ''
  text: str = ''
  peer: str = ''
  method: str = ''
  seconds: float = 0.0
  share: float = 0.0


@dataclass(frozen=True)
class NodeStatus:
  """One node.

  Attributes:
    name: in the graph.
    service: the service's type.
    unit: nodes of one unit share a process.
    state: 'waiting' (not started yet), 'starting' (its constructor runs), 'running'
      (its loop does), 'serving' (it has none), 'finished' (the loop has returned; it
      serves on), 'restarting' (it died and will be started again), 'stopped' or
      'failed'.
    restarts: so far.
    log: the file with its output; empty where there is none.
    answers: whether it has answered of late; False also while it is not up.
    silent: seconds since it answered; None if it never has.
    host: where it runs.
    pid: of its process; the same of all nodes where nodes are threads.
    cpu: cores that its process uses, 1.0 for one.
    memory: bytes of its process that are in memory (RSS).
    gpu_memory: bytes that it holds on its accelerators; None where there are none.
    waits: what it is waiting for.
    recent: how its time was spent in the last seconds.
    whole: how since the start, all lives together.
    queue: calls that it has received and not answered yet.
    slowest: the open call that it has waited for longest, 'node.method'; empty if none.
    slowest_seconds: how long.
    parameter_age: seconds since it last got its parameters, or heard that they are the
      newest; None if it asks for none.
    tables: of a replay, by table, its statistics (`TableStatistics`): size, credit
      (null: unbounded), state, waiting_writers, writers_blocked_seconds,
      waiting_samplers, samplers_blocked_seconds, ...; of another service with a method
      `statistics()` what that gives, under its own names.
  """

  name: str
  service: str = ''
  unit: str = ''
  state: str = 'waiting'
  restarts: int = 0
  log: str = ''
  answers: bool = False
  silent: float | None = None
  host: str = ''
  pid: int | None = None
  cpu: float | None = None
  memory: int | None = None
  gpu_memory: int | None = None
  waits: Waits = Waits()
  recent: Shares = Shares()
  whole: Shares = Shares()
  queue: int = 0
  slowest: str = ''
  slowest_seconds: float = 0.0
  parameter_age: float | None = None
  tables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EdgeStatus:
  """The calls of one node to another, as the caller sees them.

  Attributes:
    caller: its name.
    callee: the name of the node that is called.
    calls: answered in this life of the caller.
    errors: of these, those that ended in an exception.
    calls_per_second: over the last seconds; None while the caller is silent.
    bytes_per_second: in both directions; None likewise.
    latency_p50: seconds of a round trip, of the newest 2,048 calls of each method.
    latency_p99: likewise.
    open: calls that are not answered yet.
    methods: calls per second by method.
  """

  caller: str
  callee: str
  calls: int = 0
  errors: int = 0
  calls_per_second: float | None = None
  bytes_per_second: float | None = None
  latency_p50: float | None = None
  latency_p99: float | None = None
  open: int = 0
  methods: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
  """The document.

  Attributes:
    program: its name.
    backend: that it runs as.
    state: 'running', 'stopping', 'finished', 'failed' or 'interrupted'.
    reason: why it has failed; empty otherwise.
    host: of the launcher.
    pid: of the launcher.
    started: when the program was, in seconds since 1970.
    time: when this was gathered, likewise.
    cores: of the launcher's host.
    page: address of its page without the token; empty if there is none.
    nodes: in order of declaration.
    edges: every edge of the graph, used or not.
    bottleneck: one sentence: what holds the program, by the time since the start; empty
      while there is nothing to say.
  """

  program: str
  backend: str = ''
  state: str = 'running'
  reason: str = ''
  host: str = ''
  pid: int = 0
  started: float = 0.0
  time: float = 0.0
  cores: int = 1
  page: str = ''
  nodes: tuple[NodeStatus, ...] = ()
  edges: tuple[EdgeStatus, ...] = ()
  bottleneck: str = ''


def to_json(status: Status) -> str:
  """The document as JSON."""
  return json.dumps(plain(dataclasses.asdict(status)), allow_nan=False)


def from_json(text: str) -> Status:
  """The document that `to_json` has written, by this version or another.

  Raises:
    ValueError: it is none.
  """
  try:
    found: Status = _made(Status, json.loads(text))
  except (TypeError, KeyError, AttributeError) as error:
    raise ValueError(f'no status of a program: {error}') from None
  return found


def write(folder: str, name: str, text: str) -> None:
  """Writes a file whole, so that nobody sees a half of it.

  Raises:
    OSError: it can't be written; the file before it is still there.
  """
  path = os.path.join(folder, name)
  try:
    with open(f'{path}.new', 'w') as file:
      file.write(text)
    os.replace(f'{path}.new', path)
  except OSError:
    with contextlib.suppress(OSError):
      os.remove(f'{path}.new')
    raise


def read(folder: str) -> Status:
  """The newest status of the run in this folder.

  Raises:
    UsageError: there is none, or it can't be read.
  """
  path = os.path.join(folder, FILE)
  try:
    with open(path) as file:
      return from_json(file.read())
  except (OSError, ValueError) as error:
    why = getattr(error, 'strerror', None) or error
    raise UsageError(
      f'{path} can not be read ({why}): expected the folder of a run, runs/NAME'
    ) from None


def plain(value: Any) -> Any:
  """The value as JSON has it: no nan, no infinity, and keys that are texts."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = dataclasses.fields(value)
    return {field.name: plain(getattr(value, field.name)) for field in fields}
  if hasattr(value, '_asdict'):
    return plain(value._asdict())
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  if value is None or isinstance(value, bool | int | str):
    return value
  try:
    number = float(value)
  except (TypeError, ValueError):
    return str(value)
  return number if math.isfinite(number) else None


def _made(kind: Any, value: Any) -> Any:
  """The value as its type, which is one of those above."""
  if value is None:
    return None
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
  if typing.get_origin(kind) is tuple:
    item = typing.get_args(kind)[0]
    return tuple(_made(item, each) for each in value)
  if not dataclasses.is_dataclass(kind):
    return value
  hints = typing.get_type_hints(kind)
  given = {
    name: _made(hint, value[name]) for name, hint in hints.items() if name in value
  }
  return kind(**given)  # type: ignore[operator]
