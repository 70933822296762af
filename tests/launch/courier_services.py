"""Services that the courier's tests call, importable by their server processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, NoReturn

from callsheet.calls import blocking
from callsheet.launch import courier

SECRET = b'0123456789abcdef0123456789abcdef'


class Awkward(Exception):
  """Pickles, but can't be unpickled."""

  def __init__(self, first: int, second: int) -> None:
    super().__init__('awkward')


class Rejected(Exception):
  """A node's own exception, with state."""

  def __init__(self, code: int) -> None:
    super().__init__(code)
    self.code = code


class Service:
  """A bit of everything."""

  limit = 3  # no method

  def __init__(self) -> None:
    self.gate = threading.Event()
    self.entered = threading.Semaphore(0)
    self.calls = 0

  @property
  def trap(self) -> NoReturn:
    raise RuntimeError('properties are not to be touched')

  def ping(self) -> str:
    self.calls += 1
    return 'pong'

  def add(self, a: int, b: int = 1, *, c: int = 0) -> int:
    return a + b + c

  def echo(self, value: Any) -> Any:
    return value

  def apply(self, function: Any, value: Any) -> Any:
    return function(value)

  def describe(self, array: Any) -> tuple[str, bool, bool]:
    return type(array).__name__, array.flags.writeable, array.flags.aligned

  def sleep(self, seconds: float) -> None:
    time.sleep(seconds)

  def fail(self, error: BaseException) -> None:
    raise error

  def fail_locally(self) -> None:
    raise type('Local', (Exception,), {'__reduce__': lambda self: 1 / 0})('its text')

  def generator(self) -> Any:
    return (i for i in range(3))

  def pid(self) -> int:
    return os.getpid()

  @blocking
  def wait(self) -> str:
    self.entered.release()
    self.gate.wait()
    return 'woken'

  def wake(self) -> None:
    self.gate.set()

  def run(self) -> str:
    return 'run'

  def close(self) -> str:
    return 'closed'

  def _private(self) -> None:
    pass


if __name__ == '__main__':
  server = courier.Server(sys.argv[1], SECRET, 'service')
  server.serve(Service())
  print(server.address, flush=True)
  sys.stdin.read()
  server.close()
