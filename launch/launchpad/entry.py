"""A worker that Launchpad starts: `python -m callsheet.launch.launchpad.entry`.

Its arguments are the path of the lifeline and the unit's name. It imports neither
Launchpad nor TensorFlow.
"""

from __future__ import annotations

import os
import signal
import sys

from callsheet.launch.launchpad.lifeline import reach
from callsheet.launch.remote import worker
from callsheet.launch.remote.ticket import Ticket


def main() -> None:
  """Becomes the unit; see `callsheet.launch.remote.worker`."""
  path, unit = sys.argv[1:]
  # Launchpad asks all processes to end at once; the order is the supervisor's to give.
  # Not SIG_IGN, which what the node starts would inherit.
  signal.signal(signal.SIGTERM, lambda number, frame: None)
  if os.getpgrp() != os.getpid():
    os.setpgrp()
  connection = reach(path, unit, 'process')
  # The ticket comes by standard input, and its end is the launcher's.
  os.dup2(connection.fileno(), 0)
  connection.close()
  del sys.argv[1:]
  worker.main()


def in_thread(path: str, unit: str) -> None:
  """Lives the unit's life in this thread, beside others in the same process."""
  from callsheet.launch.remote.serving import serve

  with reach(path, unit, 'thread') as connection, connection.makefile('r') as lines:
    line = lines.readline()
    if line:
      serve(Ticket.loads(line))


if __name__ == '__main__':
  main()
