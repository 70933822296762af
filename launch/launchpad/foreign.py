"""Running nodes of Launchpad's (`lp.CourierNode`), called from ours."""

from __future__ import annotations

import contextlib
import functools
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar, cast

from callsheet.calls import call_async
from callsheet.errors import (
  DeadlineExceeded,
  NoSuchMethod,
  NotSendable,
  RemoteError,
  RemoteTraceback,
  Unavailable,
  UsageError,
)
from callsheet.launch.launchpad.backend import require_launchpad

P = ParamSpec('P')
S = TypeVar('S')

_CARRY = 'callsheet_carry'
_AGAIN = 0.1  # seconds before a node that is not there yet is looked for again
_PREFIX = 'grpc://'
_KINDS = {'DEADLINE_EXCEEDED': DeadlineExceeded, 'UNAVAILABLE': Unavailable}


def array_proof(make: Callable[P, S]) -> Callable[P, S]:
  """The same constructor, for an `lp.CourierNode` that `foreign` can send arrays to.

  `lp.CourierNode(array_proof(Replay), ...)` has one method more, which takes a whole
  call as bytes. Like Launchpad's courier itself it unpickles what anybody sends who can
  reach its port.

  Args:
    make: the class of the node.
  """

  def construct(*args: P.args, **kwargs: P.kwargs) -> S:
    service: Any = make(*args, **kwargs)
    setattr(service, _CARRY, functools.partial(_carry, service))
    return cast(S, service)

  construct.__name__ = getattr(make, '__name__', 'array_proof')
  return construct


def _carry(service: object, call: bytes) -> bytes:
  """Makes a call that came as bytes; the answer or the exception goes back as bytes."""
  name, args, kwargs = pickle.loads(call)
  try:
    if name.startswith('_') or not callable(getattr(service, name, None)):
      raise NoSuchMethod(f'{type(service).__name__} has no method {name!r}')
    answer = ('', getattr(service, name)(*args, **kwargs))
    return pickle.dumps(answer, protocol=5)
  except Exception as error:
    text = traceback.format_exc()
    with contextlib.suppress(Exception):
      return pickle.dumps((text, error), protocol=5)
    return pickle.dumps((text, RemoteError(text)), protocol=5)


def foreign(address: str, *, deadline: float | None = 60.0) -> Any:
  """A client of a running `lp.CourierNode`.

  It looks like a client of ours: `call_async` and `with_deadline` work on its methods,
  and it may be an argument of `Program.add`. Launchpad's courier waits for ever when an
  argument holds an array, so such a call is refused, unless the node was made
  `array_proof`: then arrays pass.

  Args:
    address: 'grpc://host:port' or 'host:port', as `Address.resolve()` gives it.
    deadline: seconds for a call that names none; None to wait for ever.

  Raises:
    UsageError: Launchpad is not installed, or the address can't be read.
  """
  require_launchpad()
  where = address.removeprefix(_PREFIX)
  host, _, port = where.rpartition(':')
  if not host or not port.isdecimal():
    raise UsageError(
      f"{address!r} is no address of a courier node: expected 'grpc://host:port', for "
      "instance 'grpc://localhost:10000'"
    )
  return Foreign(where, deadline)


class Foreign:
  """See `foreign`."""

  def __init__(self, where: str, deadline: float | None) -> None:
    self._where, self._deadline = where, deadline
    self._clients: dict[float | None, Any] = {}
    self._carries: bool | None = None
    self._lock = threading.Lock()

  def __getattr__(self, name: str) -> _Method:
    if name.startswith('_'):
      raise AttributeError(f'{self!r} has no attribute {name!r}')
    return _Method(self, name, self._deadline)

  def __reduce__(self) -> tuple[Callable[..., Foreign], tuple[str, float | None]]:
    return Foreign, (self._where, self._deadline)

  def __repr__(self) -> str:
    return f'<client of the Launchpad node at {self._where}>'


class _Method:
  """A method of it; see `callsheet.calls` for what else works on it."""

  def __init__(self, peer: Foreign, name: str, seconds: float | None) -> None:
    self._peer, self._name, self._seconds = peer, name, seconds

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    peer = self._peer
    with peer._lock:
      client = _connected(peer, self._seconds)
    if not peer._carries:
      _refuse_arrays(peer, self._name, args, kwargs)
      return _ask(peer, getattr(client, self._name), *args, **kwargs)
    call = pickle.dumps((self._name, args, kwargs), protocol=5)
    text, answer = pickle.loads(_ask(peer, getattr(client, _CARRY), call))
    if text:
      raise answer from RemoteTraceback(text)
    return answer

  def _call_async(self, *args: Any, **kwargs: Any) -> Future[Any]:
    return call_async(self.__call__, *args, **kwargs)

  def _with_deadline(self, seconds: float | None) -> _Method:
    return _Method(self._peer, self._name, seconds)


def _connected(peer: Foreign, seconds: float | None) -> Any:
  """Launchpad's client with this deadline, once the node is there."""
  if peer._carries is None:
    _wait_until_there(peer, seconds)
  if seconds not in peer._clients:
    import launchpad as lp

    peer._clients[seconds] = lp.CourierClient(peer._where, call_timeout=seconds)
  if peer._carries is None:
    peer._carries = _CARRY in peer._clients[seconds]._client.ListMethods()
  return peer._clients[seconds]


def _wait_until_there(peer: Foreign, seconds: float | None) -> None:
  """Courier's question for the methods has no deadline of its own."""
  host, _, port = peer._where.rpartition(':')
  until = None if seconds is None else time.monotonic() + seconds
  while True:
    try:
      socket.create_connection((host, int(port)), timeout=seconds).close()
      return
    except OSError as error:
      if until is not None and time.monotonic() > until:
        raise Unavailable(
          f'no Launchpad node answers at {peer._where} within {seconds:g} s: {error}',
          peer._where,
        ) from None
      time.sleep(_AGAIN)


def _ask(peer: Foreign, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
  """Calls Launchpad's client; its one kind of error becomes ours."""
  from pybind11_abseil.status import StatusNotOk

  try:
    return method(*args, **kwargs)
  except StatusNotOk as error:
    kind = _KINDS.get(getattr(getattr(error, 'code', None), 'name', ''), RemoteError)
    raise kind(f'{peer!r}: {error}', peer._where) from error


def _refuse_arrays(
  peer: Foreign, name: str, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
  places = [*enumerate(args), *kwargs.items()]
  for place, value in places:
    if _holds_array(value):
      raise NotSendable(
        f"argument {place!r} of {name!r} holds an array, and Launchpad's courier at "
        f'{peer._where} would wait for ever: make that node with '
        'lp.CourierNode(array_proof(Class), ...), or send it as a list or bytes',
        peer._where,
      )


def _holds_array(value: object) -> bool:
  if hasattr(type(value), '__array__'):
    return True
  if isinstance(value, Mapping):
    return any(map(_holds_array, (*value.keys(), *value.values())))
  if isinstance(value, list | tuple | set | frozenset):
    return any(map(_holds_array, value))
  return False
