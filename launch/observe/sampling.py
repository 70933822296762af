"""Looks at the threads of a process now and then, and says what they are doing.

So the hot path pays nothing: a look takes some ten microseconds, twenty times a second,
and a share of the time is known to a few per cent after half a minute.
"""

from __future__ import annotations

import concurrent.futures._base
import os
import queue
import random
import selectors
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Literal

from callsheet.launch import courier

Activity = Literal['computing', 'sending', 'waiting']
Look = Callable[[Mapping[int, FrameType]], None]

PERIOD = 0.05  # seconds

_COURIER = os.path.dirname(courier.__file__)
# Whose functions do nothing but wait.
_WAITING = frozenset(
  module.__file__ for module in (threading, queue, concurrent.futures._base, selectors)
)
# Of the courier's, those that move or pack a message.
_MOVING = frozenset({'send', 'encode', 'loads', 'dumps', 'dumps_call', '_fill'})


def activity(frame: FrameType | None) -> Activity:
  """What a thread is doing.

  Args:
    frame: the innermost of it; None of a thread that has just ended.
  """
  if frame is None or frame.f_code.co_filename in _WAITING:
    return 'waiting'
  if not frame.f_code.co_filename.startswith(_COURIER):
    return 'computing'
  while frame is not None and frame.f_code.co_filename.startswith(_COURIER):
    if frame.f_code.co_name in _MOVING:
      return 'sending'
    frame = frame.f_back
  return 'waiting'


class _Sampler:
  """The thread; there is one as long as anybody wants to look."""

  def __init__(self) -> None:
    self.looks: list[Look] = []
    self._enough = threading.Event()
    threading.Thread(target=self._sample, daemon=True, name='status').start()

  def _sample(self) -> None:
    # At no even pace, or what goes on at the same one would be seen at one point alone.
    while not self._enough.wait(PERIOD * random.uniform(0.5, 1.5)):
      frames = sys._current_frames()
      for look in list(self.looks):
        look(frames)
      del frames  # They keep alive whatever their functions hold.

  def end(self) -> None:
    self._enough.set()


_lock = threading.Lock()
_sampler: _Sampler | None = None


def watch(look: Look) -> None:
  """From now on calls it with the innermost frame of each thread, by its number."""
  global _sampler
  with _lock:
    _sampler = _sampler or _Sampler()
    _sampler.looks.append(look)


def unwatch(look: Look) -> None:
  """Ends that; does nothing if it was not watched."""
  global _sampler
  with _lock:
    if _sampler is None or look not in _sampler.looks:
      return
    _sampler.looks.remove(look)
    if not _sampler.looks:
      _sampler.end()
      _sampler = None
