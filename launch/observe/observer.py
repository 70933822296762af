"""What a node's process tells of it, without the node knowing.

Every node's server answers two calls beside its service: `observe` and `stacks`.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from callsheet.launch import courier
from callsheet.launch.courier import MethodStatistics, Record, Server, percentiles
from callsheet.launch.observe import machine, sampling
from callsheet.launch.observe.document import plain

COMPUTING, SENDING, IDLE = 'computing', 'sending', 'idle'


@dataclass(frozen=True)
class Calls:
  """What a node's calls of another one did.

  Attributes:
    methods: their statistics, by method.
    latency_p50: seconds of a round trip, all methods together.
    latency_p99: likewise.
  """

  methods: Mapping[str, MethodStatistics]
  latency_p50: float
  latency_p99: float


@dataclass(frozen=True)
class Observation:
  """How a node stands.

  Attributes:
    life: tells this life of the node from those before it.
    host: of its process.
    pid: of its process.
    cpu_seconds: that its process has used.
    memory: bytes of it that are in memory; None where that can't be told.
    gpu_memory: bytes on accelerators; None without any.
    samples: how often it was seen 'computing', 'sending', 'idle' or waiting for
      'node.method', by that.
    calls: of other nodes, by their names.
    handlers: what its own methods did, by name.
    figures: what its service's `statistics()` gives, as JSON has it; empty if it has no
      such method.
  """

  life: str
  host: str
  pid: int
  cpu_seconds: float
  memory: int | None
  gpu_memory: int | None
  samples: Mapping[str, int]
  calls: Mapping[str, Calls]
  handlers: Mapping[str, MethodStatistics]
  figures: Mapping[str, Any]


class Observer:
  """Watches one life of one node.

  Args:
    clients: of the node; the list may grow.
  """

  def __init__(self, clients: Sequence[Any]) -> None:
    self._clients = clients
    self._life = uuid.uuid4().hex
    self._samples: Counter[str] = Counter()
    self._server: Server | None = None
    self._service: object = None
    self._thread = 0

  def begin(self, server: Server, service: object) -> dict[str, Callable[..., Any]]:
    """Watches from now on; to be called in the node's own thread.

    Returns:
      what the server is to answer beside the service.
    """
    self._server, self._service = server, service
    self._thread = threading.get_ident()
    sampling.watch(self._look)
    return {'observe': self.observe, 'stacks': stacks}

  def end(self) -> None:
    """Watches no more."""
    sampling.unwatch(self._look)

  def observe(self) -> Observation:
    """How the node stands."""
    return Observation(
      life=self._life,
      host=socket.gethostname(),
      pid=os.getpid(),
      cpu_seconds=machine.cpu_seconds(),
      memory=machine.memory(),
      gpu_memory=machine.gpu_memory(),
      samples=dict(self._samples),
      calls=_calls(self._clients),
      handlers={} if self._server is None else self._server.statistics(),
      figures=_figures(self._service),
    )

  def _look(self, frames: Mapping[int, FrameType]) -> None:
    made = [
      (begun, thread, f'{courier.peer(client)}.{method}')
      for client in self._clients
      for method, record in courier.records(client).items()
      for thread, begun in record.under_way().items()
    ]
    handlers = _threads(self._server.records().values() if self._server else ())
    self._samples[spent(self._thread, handlers, made, frames)] += 1


def spent(
  loop: int,
  handlers: Iterable[int],
  made: Sequence[tuple[float, int, str]],
  frames: Mapping[int, FrameType],
) -> str:
  """What a node is seen doing: 'computing', 'sending', 'idle', or a 'node.method'.

  A loop that waits for a future waits for whichever of the node's calls is out longest.

  Args:
    loop: the thread of the node's own loop.
    handlers: the threads of calls that the node is answering.
    made: when each call that it waits for began, in which thread, and 'node.method'.
    frames: the innermost frame of each thread.
  """
  handlers = list(handlers)
  seen = {sampling.activity(frames.get(thread)) for thread in (loop, *handlers)}
  if 'computing' in seen:
    return COMPUTING
  if 'sending' in seen:
    return SENDING
  waited = [call for call in made if call[1] == loop] or made
  return min(waited)[2] if waited else IDLE


def stacks() -> str:
  """The stacks of all threads of this process, as text."""
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  parts = [f'process {os.getpid()} on {socket.gethostname()}\n']
  for ident, frame in sys._current_frames().items():
    parts.append(f'\nthread {names.get(ident, ident)!r}:\n')
    parts += traceback.format_stack(frame)
  return ''.join(parts)


def _threads(records: Iterable[Record]) -> list[int]:
  return [thread for record in records for thread in record.under_way()]


def _calls(clients: Sequence[Any]) -> dict[str, Calls]:
  found = {}
  for client in list(clients):
    latencies = [
      each for record in courier.records(client).values() for each in record.latencies()
    ]
    low, high = percentiles(latencies)
    found[courier.peer(client)] = Calls(courier.statistics(client), low, high)
  return found


def _figures(service: object) -> dict[str, Any]:
  statistics = getattr(service, 'statistics', None)
  if not callable(statistics):
    return {}
  try:
    figures = plain(statistics())
  except Exception:  # Whatever it is, it was not made for us.
    return {}
  return figures if isinstance(figures, dict) else {}
