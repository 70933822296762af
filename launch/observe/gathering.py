"""Asks every node how it stands, and makes the status document of the answers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

from callsheet.calls import call_async, with_deadline
from callsheet.launch import courier
from callsheet.launch.observe import document
from callsheet.launch.observe.bottlenecks import bottlenecks, sentence
from callsheet.launch.observe.document import EdgeStatus, NodeStatus, Status
from callsheet.launch.observe.observer import Observation
from callsheet.launch.observe.tracks import Track, shares
from callsheet.launch.observe.waiting import SILENT, waits
from callsheet.launch.standing import Standing
from callsheet.launch.supervisor import Running
from callsheet.programs.plan import NodePlan

PERIOD = 1.0  # seconds between two documents
_PATIENCE = 0.25  # seconds that the others' answers are waited for
_DEADLINE = 5.0  # seconds for an answer
REPORT = 'bottlenecks.json'


class _Asked:
  """One node, which is asked again only once it has answered."""

  def __init__(self, node: NodePlan, client: Any) -> None:
    self.node, self.client, self.track = node, client, Track()
    self._answer: Future[Observation] | None = None

  def ask(self) -> Future[Observation]:
    if self._answer is None:
      observe = with_deadline(courier.control(self.client, 'observe'), _DEADLINE)
      self._answer = call_async(observe)
    return self._answer

  def take_in(self) -> None:
    if self._answer is not None and self._answer.done():
      # Whatever came instead of an answer: it is none, and silence shows.
      with contextlib.suppress(Exception):
        self.track.add(self._answer.result())
      self._answer = None


class Observing:
  """Keeps the status of a program while it runs.

  ```
  with Observing('runs/mine', backend='threads') as observing:
    with start(program, 'threads') as running:
      observing.follow(running)
      running.wait()
  ```

  In the folder are then `status.json`, written anew each second and a last time when
  the program has ended, and in the end `bottlenecks.json`.

  Args:
    folder: for the files, there already; None for none.
    backend: the backend's name.
  """

  def __init__(self, folder: str | None = None, backend: str = '') -> None:
    self._folder, self._backend = folder, backend
    self._running: Running | None = None
    self._asked: dict[str, _Asked] = {}
    self._over = threading.Event()
    self._thread: threading.Thread | None = None
    self._status = Status('', backend)
    self._started = time.time()
    self._state, self._reason = 'running', ''
    self.page = ''

  def follow(self, running: Running) -> None:
    """Begins to ask the nodes, in a thread of its own."""
    self._running, self._started = running, time.time()
    self._asked = {
      node.name: _Asked(node, running.connect(node.name)) for node in running.plan.nodes
    }
    self._status = self._compose()
    self._thread = threading.Thread(target=self._gather, daemon=True, name='status')
    self._thread.start()

  @property
  def status(self) -> Status:
    """The newest document."""
    return self._status

  def bottleneck(self) -> str:
    """One sentence: what holds the program, by its time so far; empty if nothing."""
    return sentence(self._status)

  def stacks(self, node: str, seconds: float = _DEADLINE) -> str:
    """The stacks of all threads of a node's process.

    Raises:
      CourierError: it doesn't answer.
      GraphError: there is no such node.
    """
    assert self._running is not None
    client = self._asked[self._running.plan.node(node).name].client
    return str(with_deadline(courier.control(client, 'stacks'), seconds)())

  def __enter__(self) -> Observing:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self._thread is None:
      return
    self._over.set()
    self._thread.join()
    for asked in self._asked.values():
      courier.close(asked.client)
    self._state = 'finished'
    if isinstance(error, KeyboardInterrupt):
      self._state = 'interrupted'
    elif error is not None:
      self._state = 'failed'
      self._reason = str(getattr(error, 'reason', error)).partition('\n')[0]
    self._status = self._compose()
    self._write(document.FILE, document.to_json(self._status))
    self._write(REPORT, json.dumps(bottlenecks(self._status), indent=2) + '\n')

  def _gather(self) -> None:
    while True:
      standings = self._standings()
      up = [asked for name, asked in self._asked.items() if standings[name].up]
      wait([asked.ask() for asked in up], _PATIENCE)
      for asked in up:
        asked.take_in()
      self._status = self._compose()
      self._write(document.FILE, document.to_json(self._status))
      if self._over.wait(PERIOD):
        return

  def _standings(self) -> dict[str, Standing]:
    assert self._running is not None
    return self._running.standings()

  def _compose(self) -> Status:
    assert self._running is not None
    standings, now = self._standings(), time.monotonic()
    stopping = self._state == 'running' and self._running.stopping
    status = Status(
      program=self._running.plan.name,
      backend=self._backend,
      state='stopping' if stopping else self._state,
      reason=self._reason,
      host=socket.gethostname(),
      pid=os.getpid(),
      started=self._started,
      time=time.time(),
      cores=len(os.sched_getaffinity(0)),
      page=self.page,
      nodes=tuple(
        node_status(asked.node, standings[name], asked.track, now)
        for name, asked in self._asked.items()
      ),
      edges=tuple(
        edge
        for name, asked in self._asked.items()
        for edge in edge_statuses(asked.node, standings[name], asked.track, now)
      ),
    )
    return dataclasses.replace(status, bottleneck=sentence(status))

  def _write(self, name: str, text: str) -> None:
    # What can't be written must not end what it tells of.
    if self._folder is not None:
      with contextlib.suppress(OSError):
        document.write(self._folder, name, text)


def node_status(
  node: NodePlan, standing: Standing, track: Track, now: float
) -> NodeStatus:
  """A node, by what its supervisor knows and what it has told.

  Args:
    node: which.
    standing: how it stands.
    track: what it has told.
    now: in monotonic seconds.
  """
  newest = track.newest
  silent = None if newest is None else max(0.0, now - newest.at)
  status = NodeStatus(
    name=node.name,
    service=node.service,
    unit=node.unit,
    state=standing.state,
    restarts=standing.restarts,
    log=standing.log,
    answers=standing.up and silent is not None and silent < SILENT,
    silent=silent,
    whole=shares(track.whole()),
  )
  if newest is None:
    return dataclasses.replace(
      status, waits=waits(standing, None, status.recent, ('', 0.0), {})
    )
  told, recent, slowest = newest.what, shares(track.recent()), track.slowest()
  return dataclasses.replace(
    status,
    host=told.host,
    pid=told.pid,
    cpu=track.cpu(),
    memory=told.memory,
    gpu_memory=told.gpu_memory,
    waits=waits(standing, silent, recent, slowest, told.figures),
    recent=recent,
    queue=sum(each.running for each in told.handlers.values()),
    slowest=slowest[0],
    slowest_seconds=slowest[1],
    parameter_age=track.parameter_age(),
    tables=told.figures,
  )


def edge_statuses(
  node: NodePlan, standing: Standing, track: Track, now: float
) -> list[EdgeStatus]:
  """A node's edges; without rates while it is silent."""
  newest = track.newest
  if newest is None or not standing.up or now - newest.at >= SILENT:
    return [EdgeStatus(node.name, callee) for callee in node.callees]
  return [track.edge(node.name, callee) for callee in node.callees]
