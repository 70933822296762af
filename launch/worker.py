"""The process of one unit, of the processes backend; not meant to be called.

It is told what to be in one pickle on its standard input, then which of its nodes to
stop, a name a line. It tells what happens as pickled events on a pipe of its own. When
its standard input ends, the launcher is gone, and so is it.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import shutil
import signal
import sys
import threading
from typing import BinaryIO, NoReturn

from callsheet.launch.events import Event, Stopped
from callsheet.launch.heart import Heart
from callsheet.launch.node import NodeLife
from callsheet.launch.orders import Orders


def main() -> None:
  """Of a process that was spawned with the number of its events' pipe."""
  live(os.fdopen(os.dup(0), 'rb'), int(sys.argv[1]))


def live(commands: BinaryIO, events_to: int) -> NoReturn:
  """Lives until every node of the unit has stopped, then ends the process.

  Args:
    commands: what its standard input says from here on; that itself becomes empty.
    events_to: the pipe that its events go to.
  """
  # Ctrl-C and the terminal's hang-up are the launcher's to act upon.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  faulthandler.enable()
  faulthandler.register(signal.SIGUSR1, all_threads=True)
  events = os.fdopen(events_to, 'wb', buffering=0)
  os.set_inheritable(events.fileno(), False)
  with open(os.devnull, 'rb') as nothing:
    os.dup2(nothing.fileno(), 0)
  orders: Orders = pickle.load(commands)
  sys.path[:] = orders.path
  if orders.debugger is not None:
    sys.breakpointhook = orders.debugger.hook
  sending = threading.Lock()
  ended = threading.Event()
  lives: dict[str, NodeLife] = {}
  left: set[str] = set()

  def report(event: Event) -> None:
    with sending:
      try:
        events.write(pickle.dumps(event))
      except BrokenPipeError:
        return
    if isinstance(event, Stopped):
      left.discard(event.node)
      if not left:
        ended.set()

  heart = Heart(orders.unit, report)
  heart.start()
  for node in pickle.loads(orders.nodes):
    lives[node.name] = NodeLife(node, orders.book, report, orders.debugger)
    left.add(node.name)
  threading.Thread(
    target=_obey, args=(commands, lives, orders.folder), daemon=True, name='orders'
  ).start()
  heart.watch(tuple(lives.values()))
  for life in lives.values():
    life.start()
  ended.wait()
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  # Threads of libraries, and handlers that still block, don't hold the process up.
  os._exit(0)


def _obey(commands: BinaryIO, lives: dict[str, NodeLife], folder: str) -> None:
  for line in commands:
    lives[line.decode().strip()].stop()
  shutil.rmtree(folder, ignore_errors=True)
  os.killpg(0, signal.SIGKILL)


if __name__ == '__main__':
  main()
