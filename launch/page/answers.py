"""What the page is told when it asks, and what its buttons do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from callsheet.calls import with_deadline
from callsheet.errors import CallsheetError, CourierError, UsageError
from callsheet.launch import courier
from callsheet.launch.observe import document
from callsheet.launch.observe.bottlenecks import bottlenecks
from callsheet.launch.observe.gathering import Observing
from callsheet.launch.page.curves import Curves
from callsheet.launch.supervisor import Running

_TAIL = 32 * 1024  # bytes of a log
_SNAPSHOT = 600.0  # seconds


class Answers:
  """Answers for one running program; from any number of threads.

  Args:
    observing: keeps its status.
    running: the program.
    folder: of the run, for the learning curves; None if there is none.
  """

  def __init__(
    self, observing: Observing, running: Running, folder: str | None
  ) -> None:
    self._observing, self._running = observing, running
    self._lock = threading.Lock()
    self._curves = Curves(os.path.join(folder, 'metrics.jsonl')) if folder else None
    self._levels = running.plan.stop_order()
    self._snapshotter = next(
      (
        n.name
        for n in running.plan.nodes
        if callable(getattr(n.make, 'snapshot', None))
      ),
      None,
    )
    # By path; of what a query names, only `node` is looked at.
    self.asked: dict[str, Callable[[str], str]] = {
      '/status': self.status,
      '/curves': self.curves,
      '/log': self.log,
      '/bottlenecks': self.bottlenecks,
    }
    self.pressed: dict[str, Callable[[str], str]] = {
      '/stop': self.stop,
      '/snapshot': self.snapshot,
      '/stacks': self.stacks,
    }

  def status(self, node: str) -> str:
    """The status document, with the levels of the graph and what may be pressed."""
    status = document.plain(self._observing.status)
    return _text(
      {**status, 'levels': self._levels, 'snapshots': self._snapshotter is not None}
    )

  def curves(self, node: str) -> str:
    """See `Curves.read`."""
    with self._lock:
      return _text({} if self._curves is None else self._curves.read())

  def log(self, node: str) -> str:
    """`{'path', 'text'}`: the tail of the node's log.

    Raises:
      GraphError: there is no such node.
    """
    path = self._running.standings()[self._running.plan.node(node).name].log
    return _text({'path': path, 'text': tail(path)})

  def bottlenecks(self, node: str) -> str:
    """The report so far."""
    return _text(bottlenecks(self._observing.status))

  def stop(self, node: str) -> str:
    """Ends the program well."""
    self._running.end()
    return _text({'text': 'stopping'})

  def snapshot(self, node: str) -> str:
    """Takes a snapshot now.

    Raises:
      UsageError: the program has no node for that.
      CallsheetError: whatever it raised.
    """
    if self._snapshotter is None:
      raise UsageError(
        'this program takes no snapshots: it has no node with snapshot()'
      )
    client = self._running.connect(self._snapshotter)
    try:
      taken = with_deadline(client.snapshot, _SNAPSHOT)()
    finally:
      courier.close(client)
    return _text({'text': f'snapshot: {taken}'})

  def stacks(self, node: str) -> str:
    """The stacks of all threads of a node's process.

    One that doesn't answer is asked by its backend, which needs nothing of its Python.

    Raises:
      GraphError: there is no such node.
    """
    try:
      return _text({'text': self._observing.stacks(node)})
    except CourierError as error:
      dumped = self._running.dump_stacks(node)
      where = dumped.text or dumped.missing or 'its stacks are in its log'
      return _text({'text': f'{error}; {where}'})


def answer(act: Callable[[str], str], node: str) -> tuple[int, str]:
  """The code and the body of an answer; what can't be done is said in its `text`."""
  try:
    return 200, act(node)
  except CallsheetError as error:
    return 409, _text({'text': str(error)})
  except Exception as error:  # A handler's own, from another process.
    return 500, _text({'text': f'{type(error).__name__}: {error}'})


def tail(path: str, size: int = _TAIL) -> str:
  """The end of a file, from the beginning of a line on; empty if it can't be read."""
  try:
    with open(path, 'rb') as file:
      start = max(0, file.seek(0, os.SEEK_END) - size)
      file.seek(start)
      text = file.read(size).decode(errors='replace')
  except OSError:
    return ''
  return text.partition('\n')[2] if start else text


def _text(value: Any) -> str:
  return json.dumps(document.plain(value), allow_nan=False)
