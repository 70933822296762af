"""One call over a link: encode, send, wait, decode, or say what failed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from callsheet.errors import ConnectionLost, DeadlineExceeded, NotSendable
from callsheet.launch.courier import failures, wire
from callsheet.launch.courier.deadlines import Expired
from callsheet.launch.courier.link import Connection, Link
from callsheet.launch.courier.methods import no_such_method
from callsheet.launch.courier.pickling import Pickled, dumps, dumps_call, loads
from callsheet.launch.courier.statistics import MethodStatistics, Record
from callsheet.launch.courier.workers import Workers

DEFAULT = -1.0
"""The deadline that the method has by itself: the client's, or none if it blocks."""


class Caller:
  """Makes calls over a link; what a `Client` hides behind its methods."""

  def __init__(self, link: Link, deadline: float | None) -> None:
    self.link, self.deadline = link, deadline
    self.reset()

  def reset(self) -> None:
    """For a forked child: threads, connections and calls stayed with the parent."""
    self.records: dict[str, Record] = {}
    self._workers = Workers(f'calls to {self.link.peer}')
    self._unbounded: set[wire.Channel] = set()
    self._lock = threading.Lock()

  def record(self, name: str) -> Record:
    record = self.records.get(name)
    return record or self.records.setdefault(name, Record())

  def call_async(
    self,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seconds: float | None,
  ) -> Future[Any]:
    """Starts the call; what is wrong with its arguments is raised at once."""
    begun = time.monotonic()
    request = self.encode(name, args, kwargs)
    future: Future[Any] = Future()
    self._workers.submit(partial(self._complete, future, name, request, seconds, begun))
    return future

  def _complete(
    self,
    future: Future[Any],
    name: str,
    request: Pickled,
    seconds: float | None,
    begun: float,
  ) -> None:
    if not future.set_running_or_notify_cancel():
      return
    try:
      result = self.exchange(name, request, seconds, begun)
    except BaseException as error:
      future.set_exception(error)
    else:
      future.set_result(result)

  def encode(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled:
    """The message; raises NotSendable with the argument's name."""
    try:
      request = dumps_call(args, kwargs)
      if request[1] or len(request[0]) > 1:
        wire.check_size(request)
      return request
    except Exception as error:
      raise self._not_sendable(name, args, kwargs, error) from error

  def exchange(
    self, name: str, request: Pickled, seconds: float | None, begun: float
  ) -> Any:
    """Sends the request and returns the result, or raises what the handler raised."""
    record = self.records.get(name) or self.record(name)
    record.begin(begun)
    sent, got, failed = 0, 0, True
    try:
      connection, sent, end = self._send(name, request, seconds, begun)
      kind, _, body, buffers, got = self._receive(connection, name, begun, end)
      try:
        if kind == wire.ERROR:
          raise failures.unpack(body, self.link.peer)
        try:
          result = loads(body, buffers)
        except Exception as error:
          raise self._not_readable(name, error) from error
      finally:
        del body, buffers
        self.link.give_back(connection)
      failed = False
      return result
    finally:
      now = time.monotonic()
      record.end(now, now - begun, got, sent, failed)

  def _send(
    self, name: str, request: Pickled, seconds: float | None, begun: float
  ) -> tuple[Connection, int, float | None]:
    link = self.link
    while True:
      connection = link.take_idle()
      if connection is None:
        connection = self._open(name, seconds, begun)
      method = connection.methods.get(name)
      if method is None:
        link.give_back(connection)
        raise no_such_method(link.peer, name, connection.methods)
      if seconds != DEFAULT:
        limit = seconds
      else:
        limit = None if method.blocking else self.deadline
      channel = connection.channel
      end = None if limit is None else begun + limit
      try:
        if limit is None:
          self._watch(connection, name)
        elif time.monotonic() - begun > limit / 100:
          channel.arm_until(end)
        elif channel.armed != limit:
          channel.arm(limit)  # exactly, so that the next call has nothing to do
        return connection, channel.send(wire.CALL, method.index, request, end), end
      except Expired:
        self._discard(connection)
        raise self._too_late(name, begun) from None
      except OSError:
        # The server can't have read all of it, so the call has not run: try again.
        self._discard(connection)
        if link.closed or (link.cancelled and end is None):
          raise link.stopping(name) from None
      except BaseException:
        self._discard(connection)
        raise

  def _open(self, name: str, seconds: float | None, begun: float) -> Connection:
    """A new connection; `@blocking` or not, reaching the peer has a limit."""
    limit, method = seconds, (self.link.methods or {}).get(name)
    if seconds == DEFAULT:
      limit = None if method is not None and method.blocking else self.deadline
    if limit is None and self.link.cancelled:
      raise self.link.stopping(name)
    reach = self.deadline if limit is None else limit
    return self.link.open(None if reach is None else begun + reach, name)

  def _watch(self, connection: Connection, name: str) -> None:
    """Lets `cancel_blocking` reach the call."""
    with self._lock:
      self._unbounded.add(connection.channel)
    if self.link.cancelled:
      self._discard(connection)
      raise self.link.stopping(name)

  def _receive(
    self, connection: Connection, name: str, begun: float, end: float | None
  ) -> wire.Message:
    try:
      reply = connection.channel.receive(end)
      if reply is None or reply[0] not in (wire.RESULT, wire.ERROR):
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

  def _not_readable(self, name: str, error: Exception) -> NotSendable:
    return NotSendable(
      f'the result of {self.link.peer}.{name} can not be unpickled here: '
      f'{type(error).__name__}: {error}',
      self.link.peer,
    )

  def _failure(
    self, error: BaseException, name: str, begun: float, end: float | None
  ) -> BaseException:
    if isinstance(error, Expired):
      return self._too_late(name, begun)
    if not isinstance(error, (OSError, wire.Closed, wire.Malformed)):
      return error
    link = self.link
    if link.closed or (end is None and link.cancelled):
      return link.stopping(name)
    how = 'answered with garbage' if isinstance(error, wire.Malformed) else 'went away'
    return ConnectionLost(
      f'{link.peer!r} at {link.address} {how} during {link.peer}.{name}, '
      f'{time.monotonic() - begun:.1f} s after the call began: it may have run or not. '
      'Call again if that does no harm, and see the log of that node',
      link.peer,
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
    self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
  ) -> NotSendable:
    peer = self.link.peer
    method = (self.link.methods or {}).get(name)
    parameters = method.parameters if method is not None else ()
    named = dict(zip(parameters, args, strict=False))
    named.update({str(i + 1): args[i] for i in range(len(named), len(args))})
    for argument, value in {**named, **kwargs}.items():
      try:
        wire.check_size(dumps(value))
      except Exception as cause:
        return NotSendable(
          f'argument {argument!r} of {peer}.{name} (a {type(value).__name__}) can not '
          f'be sent: {type(cause).__name__}: {cause}',
          peer,
        )
    return NotSendable(f'the arguments of {peer}.{name} can not be sent: {error}', peer)

  def cancel_blocking(self) -> None:
    """Ends and refuses calls without a deadline."""
    self.link.cancel()
    with self._lock:
      for channel in self._unbounded:
        channel.abort()

  def close(self) -> None:
    """Ends everything."""
    self.link.close()
    self._workers.close()

  def activity(self) -> tuple[int, int]:
    """Calls begun, and calls ended."""
    counts = [record.counts() for record in self.records.copy().values()]
    return sum(begun for begun, _ in counts), sum(ended for _, ended in counts)

  def statistics(self) -> dict[str, MethodStatistics]:
    """By method, of those that were called."""
    return {name: record.snapshot() for name, record in self.records.copy().items()}
