"""The caller's side: an object that looks like the service."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from os import register_at_fork
from typing import Any, NoReturn

from callsheet.errors import (
  ConnectionLost,
  CourierError,
  DeadlineExceeded,
  NotSendable,
)
from callsheet.launch.courier import failures, wire
from callsheet.launch.courier.deadlines import Expired
from callsheet.launch.courier.link import Connection, Link
from callsheet.launch.courier.methods import Described, no_such_method
from callsheet.launch.courier.pickling import Pickled, dumps, loads
from callsheet.launch.courier.statistics import MethodStatistics, Record
from callsheet.launch.courier.workers import Workers

_DEFAULT = -1.0  # the deadline that the handshake tells: the client's, or none


class Caller:
  """Makes calls over a link; what a `Client` hides behind its methods."""

  def __init__(self, link: Link, deadline: float | None) -> None:
    self.link, self.deadline = link, deadline
    self._records: dict[str, Record] = {}
    self.reset()
    _callers.add(self)

  def reset(self) -> None:
    """For a forked child: threads and connections stayed with the parent."""
    self._workers = Workers(f'calls to {self.link.peer}')
    self._unbounded: set[wire.Channel] = set()
    self._lock = threading.Lock()

  def call(
    self,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seconds: float | None,
  ) -> Any:
    return self._exchange(name, self._encode(name, args, kwargs), seconds)

  def call_async(
    self,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seconds: float | None,
  ) -> Future[Any]:
    request = self._encode(name, args, kwargs)
    future: Future[Any] = Future()
    self._workers.submit(partial(self._complete, future, name, request, seconds))
    return future

  def _complete(
    self, future: Future[Any], name: str, request: Pickled, seconds: float | None
  ) -> None:
    if not future.set_running_or_notify_cancel():
      return
    try:
      result = self._exchange(name, request, seconds)
    except BaseException as error:
      future.set_exception(error)
    else:
      future.set_result(result)

  def _encode(
    self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
  ) -> Pickled:
    try:
      request = dumps((args, kwargs))
      wire.size_of(request)
    except Exception as error:
      raise self._not_sendable(name, args, kwargs, error) from error
    return request

  def _exchange(self, name: str, request: Pickled, seconds: float | None) -> Any:
    record = self._records.get(name)
    if record is None:
      record = self._records.setdefault(name, Record())
    record.begin()
    begun = time.monotonic()
    sent, got, failed = 0, 0, True
    try:
      connection, sent, end = self._send(name, request, seconds, begun)
      reply = self._receive(connection, name, begun, end)
      got = reply.size
      try:
        if reply.kind == wire.ERROR:
          raise failures.unpack(reply.body, self.link.peer)
        result = self._decode(name, reply)
      finally:
        del reply
        self.link.give_back(connection)
      failed = False
      return result
    finally:
      record.end(int((time.monotonic() - begun) * 1e9), got, sent, failed)

  def _send(
    self, name: str, request: Pickled, seconds: float | None, begun: float
  ) -> tuple[Connection, int, float | None]:
    link = self.link
    while True:
      limit = self.deadline if seconds == _DEFAULT else seconds
      known = link.methods
      if known is not None and seconds == _DEFAULT and _is_blocking(known, name):
        limit = None
      if limit is None and link.cancelled:
        raise link.stopping(name)
      reach = self.deadline if limit is None else limit
      connection = link.take(None if reach is None else begun + reach, name)
      described = connection.methods.get(name)
      if described is None:
        link.give_back(connection)
        raise no_such_method(link.peer, name, connection.methods)
      if seconds == _DEFAULT and described.blocking:
        limit = None
      end = None if limit is None else begun + limit
      if end is None:
        with self._lock:
          self._unbounded.add(connection.channel)
        if link.cancelled:
          self._discard(connection)
          raise link.stopping(name)
      try:
        return (
          connection,
          connection.channel.send(wire.CALL, name.encode(), request, end),
          end,
        )
      except Expired:
        self._discard(connection)
        raise self._too_late(name, begun) from None
      except OSError:
        # The server can't have read all of it, so the call has not run.
        self._discard(connection)
        if (link.cancelled and end is None) or link.closed:
          raise link.stopping(name) from None
      except BaseException:
        self._discard(connection)
        raise

  def _receive(
    self, connection: Connection, name: str, begun: float, end: float | None
  ) -> wire.Message:
    try:
      reply = connection.channel.receive(end)
      if reply is None or reply.kind not in (wire.RESULT, wire.ERROR):
        raise wire.Malformed
    except BaseException as error:
      self._discard(connection)
      raise self._failure(error, name, begun, end) from None
    if end is None:
      with self._lock:
        self._unbounded.discard(connection.channel)
    return reply

  def _discard(self, connection: Connection) -> None:
    with self._lock:
      self._unbounded.discard(connection.channel)
    self.link.discard(connection)

  def _decode(self, name: str, reply: wire.Message) -> Any:
    try:
      return loads(reply.body, reply.buffers)
    except Exception as error:
      raise NotSendable(
        f'the result of {self.link.peer}.{name} can not be unpickled here: '
        f'{type(error).__name__}: {error}',
        self.link.peer,
      ) from error

  def _failure(
    self, error: BaseException, name: str, begun: float, end: float | None
  ) -> BaseException:
    if isinstance(error, Expired):
      return self._too_late(name, begun)
    if not isinstance(error, (OSError, wire.Closed, wire.Malformed)):
      return error
    if self.link.closed or (end is None and self.link.cancelled):
      return self.link.stopping(name)
    how = 'answered with garbage' if isinstance(error, wire.Malformed) else 'went away'
    return ConnectionLost(
      f'{self.link.peer!r} at {self.link.address} {how} during '
      f'{self.link.peer}.{name}, {time.monotonic() - begun:.1f} s after the call '
      'began: it may have run or not. Call again if that does no harm, and see the log of that node',
      self.link.peer,
    )

  def _too_late(self, name: str, begun: float) -> DeadlineExceeded:
    peer = self.link.peer
    return DeadlineExceeded(
      f'{peer}.{name} was not answered in {time.monotonic() - begun:.3g} s by {peer!r} '
      f'at {self.link.address}; it may still run there. Give it longer with '
      f'with_deadline({peer}.{name}, seconds), or mark the method @blocking if it is '
      'meant to wait',
      peer,
    )

  def _not_sendable(
    self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
  ) -> CourierError:
    peer, known = self.link.peer, self.link.methods or {}
    described = known.get(name, Described(False, ()))
    if name not in known and known:
      return no_such_method(peer, name, known)
    named = [
      (described.parameters[i] if i < len(described.parameters) else str(i + 1), value)
      for i, value in enumerate(args)
    ]
    for argument, value in [*named, *kwargs.items()]:
      try:
        wire.size_of(dumps(value))
      except Exception as cause:
        return NotSendable(
          f'argument {argument!r} of {peer}.{name} (a {type(value).__name__}) can not '
          f'be sent: {type(cause).__name__}: {cause}',
          peer,
        )
    return NotSendable(f'the arguments of {peer}.{name} can not be sent: {error}', peer)

  def cancel_blocking(self) -> None:
    self.link.cancel()
    with self._lock:
      for channel in self._unbounded:
        channel.abort()

  def close(self) -> None:
    self.link.close()
    self._workers.close()

  def statistics(self) -> dict[str, MethodStatistics]:
    return {name: record.snapshot() for name, record in self._records.copy().items()}


def _is_blocking(known: Mapping[str, Described], name: str) -> bool:
  described = known.get(name)
  return described is not None and described.blocking


class RemoteMethod:
  """A method of a service in another process; call it like the method itself.

  `callsheet.calls.call_async` and `with_deadline` work on it.
  """

  __slots__ = ('_caller', '_name', '_seconds')

  def __init__(self, caller: Caller, name: str, seconds: float | None) -> None:
    self._caller, self._name, self._seconds = caller, name, seconds

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return self._caller.call(self._name, args, kwargs, self._seconds)

  def _call_async(self, *args: Any, **kwargs: Any) -> Future[Any]:
    return self._caller.call_async(self._name, args, kwargs, self._seconds)

  def _with_deadline(self, seconds: float | None) -> RemoteMethod:
    return RemoteMethod(
      self._caller, self._name, None if seconds is None else max(seconds, 0.0)
    )

  def __reduce__(self) -> NoReturn:
    raise _not_picklable(self._caller.link)

  def __repr__(self) -> str:
    link = self._caller.link
    return f'<method {self._name} of {link.peer!r} at {link.address}>'


class Client:
  """Looks like the service at the other end: each attribute is a `RemoteMethod`.

  It connects with its first call, survives its server's restart, may be used by any
  number of threads at once and in a forked child. It can't be pickled: another process
  connects for itself.
  """

  def __init__(self, caller: Caller) -> None:
    self._caller = caller

  def __getattr__(self, name: str) -> RemoteMethod:
    if name.startswith('_'):
      raise AttributeError(f'{self!r} has no attribute {name!r}')
    caller = self._caller
    known = caller.link.methods
    if known is not None and name not in known:
      raise no_such_method(caller.link.peer, name, known)
    method = RemoteMethod(caller, name, _DEFAULT)
    self.__dict__[name] = method
    return method

  def __dir__(self) -> list[str]:
    return sorted([*object.__dir__(self), *(self._caller.link.methods or ())])

  def __reduce__(self) -> NoReturn:
    raise _not_picklable(self._caller.link)

  def __repr__(self) -> str:
    return f'<client of {self._caller.link.peer!r} at {self._caller.link.address}>'


def _not_picklable(link: Link) -> NotSendable:
  return NotSendable(
    f'a client of {link.peer!r} can not be pickled: give the other process the handle '
    'that Program.add returned, or connect there',
    link.peer,
  )


def connect(
  address: str, secret: bytes, *, peer: str, deadline: float | None = 60.0
) -> Client:
  """A client of the service at `address`; nothing is sent before its first call.

  Args:
    address: 'unix:/path' or 'tcp:host:port'.
    secret: the program's secret, as the server holds it.
    peer: the node's name, for messages.
    deadline: seconds for each call to a method that is not `@blocking`, and for
      reaching the server in any case; None for no limit.

  Raises:
    UsageError: the address can't be read or the secret is empty.
  """
  return Client(Caller(Link(address, secret, peer), deadline))


def close(client: Client) -> None:
  """Ends the client; its outstanding calls raise CallCancelled."""
  client._caller.close()


def cancel_blocking(client: Client) -> None:
  """This node is stopping: calls without a deadline raise CallCancelled, now and later.

  Calls with a deadline still work, but no longer wait for a peer that isn't there.
  """
  client._caller.cancel_blocking()


def statistics(client: Client) -> dict[str, MethodStatistics]:
  """What this client's calls did, by method."""
  return client._caller.statistics()


_callers: weakref.WeakSet[Caller] = weakref.WeakSet()


def _after_fork() -> None:
  for caller in list(_callers):
    caller.link.reset()
    caller.reset()


register_at_fork(after_in_child=_after_fork)
