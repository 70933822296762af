"""The stacks of a process that is stuck, written by itself to its standard error."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

from callsheet.launch.crew import Stacks


def dump_stacks(pid: int) -> Stacks:
  """Asks a worker of this machine for its stacks, by the signal that it listens to.

  faulthandler answers in a signal handler of its own, so that nothing has to run
  Python for it; but what is stopped answers no signal.
  """
  status = ''
  with contextlib.suppress(OSError):  # There is no /proc, or no such process.
    status = Path(f'/proc/{pid}/status').read_text()
  state = re.search(r'^State:\s+(\w)', status, re.MULTILINE)
  if state is not None and state[1] in 'Tt':
    return Stacks(missing='its process is stopped, so there are no stacks of it')
  caught = re.search(r'^SigCgt:\s+(\w+)', status, re.MULTILINE)
  if caught is not None and not int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1:
    # It would die of the signal.
    return Stacks(missing='its process has only begun, so there are no stacks of it')
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, signal.SIGUSR1)
  return Stacks()
