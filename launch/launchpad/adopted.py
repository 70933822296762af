"""Classes that were written for `lp.CourierNode`, as nodes of ours."""

from __future__ import annotations

import ctypes
import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from callsheet.calls import call_async
from callsheet.errors import UsageError
from callsheet.launch import courier
from callsheet.launch.launchpad.backend import require_launchpad

P = ParamSpec('P')
S = TypeVar('S')

_LOOK = 0.05  # seconds between two looks whether to stop
_PATIENCE = 2.0  # seconds that a run has to end by itself


def client(ours: object) -> Any:
  """A client of ours that also has what a courier client has: `futures`.

  Args:
    ours: the client, or the plain object in its place.
  """
  return ours if isinstance(ours, CourierLike) else CourierLike(ours)


class CourierLike:
  """See `client`."""

  def __init__(self, ours: object) -> None:
    self._ours = ours

  @property
  def futures(self) -> _Futures:
    """The same methods, each giving a future."""
    return _Futures(self._ours)

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):
      raise AttributeError(f'{self!r} has no attribute {name!r}')
    return getattr(self._ours, name)

  def __repr__(self) -> str:
    return repr(self._ours)


class _Futures:
  def __init__(self, ours: object) -> None:
    self._ours = ours

  def __getattr__(self, name: str) -> Callable[..., Future[Any]]:
    return functools.partial(call_async, getattr(self._ours, name))


def adopt(make: Callable[P, S]) -> Callable[P, S]:
  """The constructor of a class that was written for `lp.CourierNode`, for ours.

  ```
  replay = program.add('replay', adopt(TheirReplay))
  program.add(Node('learner', ends_program=True), adopt(TheirLearner), replay)
  ```

  The clients that it is given have `futures`. In its constructor and its `run`,
  `lp.wait_for_stop` and `lp.stop_event` tell of our stop, and `lp.stop()` ends the run,
  and with it the program if the node `ends_program`. `lp.register_stop_handler` is for
  Launchpad's own processes. Types of parameters are not checked: they name courier
  clients.

  Args:
    make: the class, or a function that makes the service.

  Raises:
    UsageError: Launchpad is not installed, or the class asks for the courier server.
  """
  require_launchpad()

  def construct(*args: P.args, **kwargs: P.kwargs) -> S:
    stage = _Stage()
    stage.enter()
    ours, named = _adapted(args), _adapted(kwargs)
    service: Any = make(*ours, **named)
    if hasattr(service, 'set_courier_server'):
      raise UsageError(
        f'{type(service).__name__} wants the courier server itself, and ours is not '
        "Launchpad's: leave its method set_courier_server out"
      )
    run = getattr(service, 'run', None)
    if callable(run):
      service.run = functools.partial(stage.run, run)
    made: S = service
    return made

  construct.__name__ = getattr(make, '__name__', 'adopted')
  construct.__annotations__ = {'return': make if isinstance(make, type) else Any}
  signature = inspect.signature(make)
  untyped = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
  construct.__signature__ = signature.replace(parameters=untyped)  # type: ignore[attr-defined]
  return construct


def _adapted(value: Any) -> Any:
  if isinstance(value, courier.Client):
    return client(value)
  if type(value) in (list, tuple):
    return type(value)(map(_adapted, value))
  if type(value) is dict:
    return {key: _adapted(item) for key, item in value.items()}
  return value


class _Stage:
  """Stands for Launchpad's worker manager in the threads that enter it."""

  def __init__(self) -> None:
    self._stopping = threading.Event()
    self._asked = threading.Event()

  def enter(self) -> None:
    """Makes `lp.stop` and its like, called from this thread, mean us."""
    from launchpad import context
    from launchpad.launch import worker_manager

    mine = context.LaunchContext()
    kind = context.LaunchType.LOCAL_MULTI_THREADING
    mine.initialize(kind, None, self._asked.set)
    context.set_context(mine)
    worker_manager._WORKER_MANAGERS.manager = self

  def wait_for_stop(self, timeout_secs: float | None = None) -> bool:
    """Called by `lp.wait_for_stop`."""
    return self._stopping.wait(timeout_secs)

  def stop_event(self) -> threading.Event:
    """Called by `lp.stop_event`."""
    return self._stopping

  def run(self, theirs: Callable[[], None], stop: threading.Event) -> None:
    """Runs their `run` in a thread until it returns, `lp.stop` is called or we stop."""
    errors: list[BaseException] = []

    def body() -> None:
      self.enter()
      try:
        theirs()
      except SystemExit:
        if not self._stopping.is_set():
          raise
      except BaseException as error:
        errors.append(error)

    name = threading.current_thread().name
    thread = threading.Thread(target=body, daemon=True, name=f'{name} run')
    thread.start()
    while thread.is_alive() and not self._asked.is_set() and not stop.is_set():
      thread.join(_LOOK)
    self._stopping.set()
    thread.join(_PATIENCE)
    if thread.is_alive():
      # It asks nobody whether to stop.
      ident = ctypes.c_ulong(thread.ident or 0)
      ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
      thread.join(_PATIENCE)
    if errors:
      raise errors[0]
