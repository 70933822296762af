"""One life of one node: listen, build the service, serve it, run it, close it."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from callsheet.errors import CourierError, UsageError
from callsheet.launch import courier, spmd
from callsheet.launch.addresses import Book
from callsheet.launch.debugger import Debugger
from callsheet.launch.events import Event, Failed, Finished, Ready, Stopped
from callsheet.launch.heart import Pulse
from callsheet.launch.observe.observer import Observer
from callsheet.programs.plan import NodePlan


class Interrupted(BaseException):
  """Raised inside a `run` that takes no `stop`, to end it."""


class NodeLife:
  """Lives in a thread of its own, in whatever process a backend chose.

  Args:
    node: what to build.
    book: where the others are.
    report: called from the node's thread with what happens to it.
    debugger: opened where the node raises an exception; None for none.
  """

  def __init__(
    self,
    node: NodePlan,
    book: Book,
    report: Callable[[Event], None],
    debugger: Debugger | None = None,
  ) -> None:
    self._node, self._book, self._report = node, book, report
    self._debugger = debugger
    self._stop = threading.Event()
    self._clients: list[Any] = []
    self._observer = Observer(self._clients)
    self._lock = threading.Lock()
    self._in_service = False
    self._deaf = False
    self._failed = False
    self._pulse = Pulse()
    self._thread = threading.Thread(target=self._live, name=node.name, daemon=True)

  def start(self) -> None:
    """Begins the life; its events follow."""
    self._thread.start()

  def stop(self) -> None:
    """Asks the node to come to its end; calls that could block for ever are ended."""
    self._stop.set()
    with self._lock:
      for client in self._clients:
        courier.cancel_blocking(client)
      if self._deaf:
        self._raise(Interrupted)

  def abort(self) -> None:
    """Takes the node's clients away and raises in whatever code of its it is."""
    self._stop.set()
    with self._lock:
      for client in self._clients:
        courier.close(client)
      if self._in_service:
        self._raise(Interrupted)

  @property
  def node(self) -> NodePlan:
    """Whose life it is."""
    return self._node

  def quiet(self, most: float) -> float:
    """Seconds of silence, see `Silence.run`; each call counts for `most` at most."""
    with self._lock:
      clients = list(self._clients)
    return self._pulse.quiet(clients, most)

  def stacks(self) -> str:
    """What the node's thread and its handlers are doing."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = (self._node.name, f'{self._node.name} call')
    return '\n'.join(
      f'Thread {names[ident]!r}:\n{"".join(traceback.format_stack(frame))}'
      for ident, frame in sys._current_frames().items()
      if names.get(ident) in own
    )

  def join(self, timeout: float) -> bool:
    """Waits for the end, at most `timeout` seconds; True if it came."""
    if self._thread.ident is None:
      return True
    self._thread.join(timeout)
    return not self._thread.is_alive()

  def _live(self) -> None:
    name = self._node.name
    server, service = None, None
    try:
      server = self._book.listen(name)
      # A constructor asks nobody whether to stop, and may import for seconds.
      with self._service_code(deaf=True):
        if self._stop.is_set():
          raise Interrupted
        spmd.join(self._node, self._book, self._client)
        service = self._node.construct(self._client)
      server.serve(service, self._observer.begin(server, service))
      self._pulse.serves(server)
      run = getattr(service, 'run', None)
      self._report(Ready(name, runs=callable(run)))
      if callable(run):
        with self._pulse.running():
          self._run(run)
        self._report(Finished(name))
      self._stop.wait()
    except BaseException as error:
      self._fail(error)
    try:
      close = getattr(service, 'close', None)
      if callable(close):
        with self._service_code():
          close()
    except BaseException as error:
      self._fail(error)
    self._observer.end()
    if server is not None:
      server.close()
    for client in self._clients:
      courier.close(client)
    if not self._failed:
      spmd.leave(self._node)
    self._report(Stopped(name))

  def _run(self, run: Callable[..., None]) -> None:
    if 'stop' in inspect.signature(run).parameters:
      with self._service_code():
        run(stop=self._stop)
      return
    try:
      with self._service_code(deaf=True):
        if not self._stop.is_set():
          run()
    except Interrupted:
      if not self._stop.is_set():
        raise

  @contextlib.contextmanager
  def _service_code(self, deaf: bool = False) -> Iterator[None]:
    """Where the thread may be raised in; our own clean-up must not be torn."""
    with self._lock:
      self._in_service, self._deaf = True, deaf
    try:
      yield
    finally:
      with self._lock:
        self._in_service = self._deaf = False
        self._raise(None)

  def _client(self, name: str) -> Any:
    client = self._book.connect(name)
    with self._lock:
      self._clients.append(client)
      if self._stop.is_set():
        courier.cancel_blocking(client)
    return client

  def _fail(self, error: BaseException) -> None:
    if self._stop.is_set() and isinstance(error, CourierError | Interrupted):
      return
    if isinstance(error, SystemExit) and not error.code:
      self._report(Finished(self._node.name))
      self._stop.wait()
      return
    self._failed = True
    if self._debugger is not None and not isinstance(error, UsageError | Interrupted):
      self._debugger.post_mortem(self._node.name, error)
    self._report(Failed(self._node.name, spmd.failure_of(self._node, error)))

  def _raise(self, error: type[BaseException] | None) -> None:
    """Raises in the node's thread at its next bytecode; None takes that back."""
    ident = ctypes.c_ulong(self._thread.ident or 0)
    thrown = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, thrown)
