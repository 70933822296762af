"""How a node calls another: futures, deadlines, and handlers that are meant to block.

These work on a client of a running node and on the plain object alike, so that a node
under test can be given the real thing.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from callsheet.errors import ConnectionLost

P = ParamSpec('P')
R = TypeVar('R')
F = TypeVar('F', bound=Callable[..., object])

_BLOCKING = '__callsheet_blocking__'
_PAUSE = 0.05  # seconds before a lost call is made again


def blocking(method: F) -> F:
  """Marks a handler that is meant to block: its callers wait without a deadline.

  A peer that dies is still noticed, and a program that stops ends the wait.
  """
  setattr(method, _BLOCKING, True)
  return method


def is_blocking(method: object) -> bool:
  """Whether `blocking` marked this method."""
  return bool(getattr(method, _BLOCKING, False))


def call_async(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
  """Starts the call and returns its future at once.

  Args:
    method: a bound method of a client, `counter.increment`, or of a plain object.
    *args: as for the method itself.
    **kwargs: as for the method itself.
  """
  remote = getattr(method, '_call_async', None)
  if remote is not None:
    future: Future[R] = remote(*args, **kwargs)
    return future
  future = concurrent.futures.Future()

  def call() -> None:
    try:
      future.set_result(method(*args, **kwargs))
    except BaseException as error:
      future.set_exception(error)

  threading.Thread(target=call, daemon=True, name='call_async').start()
  return future


def with_deadline(method: Callable[P, R], seconds: float | None) -> Callable[P, R]:
  """The same method with another deadline: `with_deadline(replay.sample, 5.0)(...)`.

  Args:
    method: a bound method of a client; a plain object's is returned as it is.
    seconds: the whole call's limit; None waits for as long as the peer lives.
  """
  remote = getattr(method, '_with_deadline', None)
  if remote is None:
    return method
  bounded: Callable[P, R] = remote(seconds)
  return bounded


def retried(method: Callable[P, R]) -> Callable[P, R]:
  """The same method, called again where its peer was lost: for what may run twice.

  Each call waits for a peer that is being restarted as long as any call does; whatever
  else goes wrong is raised.

  Args:
    method: a bound method of a client, or of a plain object.
  """

  def call(*args: P.args, **kwargs: P.kwargs) -> R:
    while True:
      try:
        return method(*args, **kwargs)
      except ConnectionLost:
        time.sleep(_PAUSE)

  return call


def lasting(begin: Callable[[bool], Future[R]], *also: type[Exception]) -> Future[R]:
  """A call that is begun again where its peer was lost, without anybody waiting.

  Args:
    begin: starts the call, by `call_async`; it is told whether it is not the first.
    *also: what else is answered by beginning again.
  """
  lasting: Future[R] = Future()

  def answered(call: Future[R]) -> None:
    error = call.exception()
    if isinstance(error, (ConnectionLost, *also)):
      time.sleep(_PAUSE)
      attempt(True)
    elif error is not None:
      lasting.set_exception(error)
    else:
      lasting.set_result(call.result())

  def attempt(again: bool) -> None:
    try:
      begin(again).add_done_callback(answered)
    except BaseException as error:
      lasting.set_exception(error)

  attempt(False)
  return lasting
