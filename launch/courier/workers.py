"""As many daemon threads as there is work at once; idle ones are used again."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_Task = Callable[[], None]


class Workers:
  """Runs each task at once, on an idle thread or on a new one.

  Args:
    name: of the threads.
    most_idle: threads kept for later tasks.
    patience: seconds after which an idle thread ends.
  """

  def __init__(self, name: str, most_idle: int = 16, patience: float = 5.0) -> None:
    self._name, self._most_idle, self._patience = name, most_idle, patience
    self._lock = threading.Lock()
    self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
    self._idle = 0
    self._closed = False

  def submit(self, task: _Task) -> None:
    """Starts the task, which must not raise."""
    with self._lock:
      reserved = self._idle > 0
      self._idle -= reserved
    if reserved:
      self._tasks.put(task)
    else:
      threading.Thread(
        target=self._work, args=(task,), name=self._name, daemon=True
      ).start()

  def close(self) -> None:
    """Ends the idle threads now and the others after their task."""
    with self._lock:
      self._closed = True
      idle, self._idle = self._idle, 0
    for _ in range(idle):
      self._tasks.put(None)

  def _work(self, task: _Task | None) -> None:
    while task is not None:
      task()
      del task
      with self._lock:
        if self._closed or self._idle >= self._most_idle:
          return
        self._idle += 1
      task = self._next()

  def _next(self) -> _Task | None:
    try:
      return self._tasks.get(timeout=self._patience)
    except queue.Empty:
      pass
    with self._lock:
      if self._idle > 0:
        self._idle -= 1
        return None
    return self._tasks.get()  # somebody has counted on this thread meanwhile
