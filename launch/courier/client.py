"""The caller's side: an object that looks like the service."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from os import register_at_fork
from typing import Any, NoReturn

from callsheet.errors import NotSendable
from callsheet.launch.courier.caller import DEFAULT, Caller
from callsheet.launch.courier.link import Link
from callsheet.launch.courier.methods import no_such_method
from callsheet.launch.courier.statistics import MethodStatistics, Record


class RemoteMethod:
  """A method of a service in another process; call it like the method itself.

  `callsheet.calls.call_async` and `with_deadline` work on it.
  """

  __slots__ = ('_caller', '_name', '_seconds')

  def __init__(self, caller: Caller, name: str, seconds: float | None) -> None:
    self._caller, self._name, self._seconds = caller, name, seconds

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    begun = time.monotonic()
    caller, name = self._caller, self._name
    return caller.exchange(
      name, caller.encode(name, args, kwargs), self._seconds, begun
    )

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
    method = RemoteMethod(caller, name, DEFAULT)
    self.__dict__[name] = method
    return method

  def __dir__(self) -> list[str]:
    known = self._caller.link.methods or ()
    return sorted([*object.__dir__(self), *(m for m in known if m[0] != '_')])

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
  address: str | Callable[[], str],
  secret: bytes,
  *,
  peer: str,
  deadline: float | None = 60.0,
) -> Client:
  """A client of the service at `address`; nothing is sent before its first call.

  Args:
    address: 'unix:/path' or 'tcp:host:port', or what gives it: asked before each new
      connection, with an OSError for 'not known yet', which is tried again.
    secret: the program's secret, as the server holds it.
    peer: the node's name, for messages.
    deadline: seconds for each call to a method that is not `@blocking`, and for
      reaching the server in any case; None for no limit.

  Raises:
    UsageError: the address can't be read or the secret is empty.
  """
  caller = Caller(Link(address, secret, peer), deadline)
  _callers.add(caller)
  return Client(caller)


def close(client: Client) -> None:
  """Ends the client; its outstanding calls raise CallCancelled."""
  client._caller.close()


def cancel_blocking(client: Client) -> None:
  """This node is stopping: calls without a deadline raise CallCancelled, now and later.

  Calls with a deadline still work, but no longer wait for a peer that isn't there.
  """
  client._caller.cancel_blocking()


def control(client: Client, name: str) -> RemoteMethod:
  """A method that the server answers beside its service; see `Server.serve`."""
  return RemoteMethod(client._caller, f'_{name}', DEFAULT)


def peer(client: Client) -> str:
  """The name of the node at the other end."""
  return client._caller.link.peer


def records(client: Client) -> dict[str, Record]:
  """Where this client's calls are noted, by method."""
  return client._caller.records.copy()


def statistics(client: Client) -> dict[str, MethodStatistics]:
  """What this client's calls did, by method."""
  return client._caller.statistics()


def activity(client: Client) -> tuple[int, int]:
  """Calls that this client has begun, and those that have ended."""
  return client._caller.activity()


_callers: weakref.WeakSet[Caller] = weakref.WeakSet()


def _after_fork() -> None:
  for caller in list(_callers):
    caller.link.reset()
    caller.reset()


register_at_fork(after_in_child=_after_fork)
