"""Services that hang, each in a way of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time

from callsheet.errors import CourierError
from tests.launch.services import Tally


class Sleepy:
  """Says so, and then hangs in its first lives: asks nobody, answers nobody."""

  def __init__(self, tally: Tally, hangs: int, seconds: float = 0.01) -> None:
    self._tally, self._hangs, self._seconds = tally, hangs, seconds

  def run(self, stop: threading.Event) -> None:
    sleeps = self._tally.increment() <= self._hangs
    while sleeps:
      time.sleep(self._seconds)
    while not stop.wait(0.05):
      self._tally.total()

  def pid(self) -> int:
    return os.getpid()


class Clinging(Sleepy):
  """Hangs in C code that never gives the interpreter back."""

  def run(self, stop: threading.Event) -> None:
    if self._tally.increment() <= self._hangs:
      ctypes.PyDLL(None).sleep(600)
    stop.wait()


class Swamp:
  """A handler that never answers, but in its first life alone."""

  def __init__(self, tally: Tally) -> None:
    self._first = tally.increment() == 1

  def ask(self) -> str:
    while self._first:
      time.sleep(0.01)
    return 'dry'


class Patient:
  """Asks until it is answered."""

  def __init__(self, swamp: Swamp, tally: Tally) -> None:
    self._swamp, self._tally = swamp, tally

  def run(self) -> None:
    while True:
      with contextlib.suppress(CourierError):
        self._tally.note(self._swamp.ask())
        return
