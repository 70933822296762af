"""The process in which Launchpad runs: `python -m callsheet.launch.launchpad.launcher`.

Launchpad takes over the signals of the process that calls it, and kills it in the end,
so it has one to itself. Each line of standard input is a program to launch, in JSON;
the end of it is the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading

_DRAIN = 2.0  # seconds for the last of the output to come through


def main() -> None:
  """Launches what it is told to; exits when its own launcher is gone or done."""
  # Imported here, since whoever imports this module for its name may not need it.
  import launchpad as lp

  from callsheet.launch.launchpad.nodes import add_workers

  managers = []
  lifeline = ''
  for line in sys.stdin:
    asked = json.loads(line)
    lifeline = asked['lifeline']
    program = lp.Program(asked['program'])
    add_workers(program, asked['units'], lifeline)
    managers.append(
      lp.launch(
        program, launch_type=asked['launch_type'], terminal=asked['terminal'] or None
      )
    )

  def drain() -> None:
    for manager in managers:
      with contextlib.suppress(Exception):
        manager.wait(raise_error=False)

  waiting = threading.Thread(target=drain, daemon=True)
  waiting.start()
  waiting.join(_DRAIN)
  if lifeline:  # Its own launcher may have been killed, and can't any more.
    shutil.rmtree(os.path.dirname(lifeline), ignore_errors=True)
  # Not by returning: Launchpad would wait for its workers once more.
  os.killpg(0, signal.SIGKILL)


if __name__ == '__main__':
  main()
