"""The process of one unit on some host: `python -m callsheet.launch.remote.worker`.

It reads its ticket, one line, from standard input or the file that is named, signs on
at the launcher's desk, and lives until its nodes have stopped, the desk dismisses it,
or it has not reached the desk for too long.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading

from callsheet.launch.remote.ticket import Ticket


def main() -> None:
  """Becomes the unit that the ticket names; exits with 0 if that went in order."""
  # Ctrl-C and the terminal's hang-up are the launcher's to act upon.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  faulthandler.enable()
  faulthandler.register(signal.SIGUSR1, all_threads=True)
  if len(sys.argv) > 1:
    with open(sys.argv[1]) as file:
      ticket = Ticket.loads(file.read()).of_this_pod()
    # Where this is a container's first process, nothing is done by default.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(1))
  else:
    ticket = Ticket.loads(sys.stdin.readline())
    threading.Thread(target=_watch_input, daemon=True, name='input').start()
  # Before numpy and its like are imported, which read it but once.
  os.environ.update(ticket.environment)
  sys.path[:] = [*ticket.path, *(p for p in sys.path if p not in ticket.path)]
  from callsheet.launch.remote.serving import serve

  code = serve(ticket)
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  # Threads of libraries, and handlers that still block, don't hold the process up.
  os._exit(code)


def _watch_input() -> None:
  """The end of standard input is the launcher's."""
  from callsheet.launch.remote.serving import leave

  while os.read(0, 4096):
    pass
  leave()


if __name__ == '__main__':
  main()
