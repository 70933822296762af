"""The nursery's own process, see `nursery`: it forks units, and says how they ended."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pickle
import selectors
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import BinaryIO, NoReturn

# As `worker.live`.
Live = Callable[[BinaryIO, int], NoReturn]

# Held back from before the fork until the nursery has its own answers to them.
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def tend(launchers: socket.socket, requests: socket.socket) -> NoReturn:
  """The life of the nursery's process."""
  code = 1
  try:
    launchers.close()
    # Here, for `python -m` warns of a module that its package has imported.
    from callsheet.launch import worker

    _leave_launcher(requests.fileno())
    with selectors.DefaultSelector() as selector:
      selector.register(requests, selectors.EVENT_READ)
      while _tend_once(selector, requests, worker.live):
        pass
    code = 0
  except BrokenPipeError:  # The launcher is gone.
    code = 0
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(code)


def _leave_launcher(requests: int) -> None:
  """Gives up what a spawned process would not have had of the launcher's."""
  os.setsid()
  for number in signal.valid_signals():
    if callable(signal.getsignal(number)):
      signal.signal(number, signal.SIG_DFL)
  for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  signal.set_wakeup_fd(-1)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
  # Who reads at the other end waits for the last of its writers. The numbers stay in
  # use: objects that are not known here may close them some day.
  nothing = os.open(os.devnull, os.O_RDWR)
  for file in map(int, os.listdir('/proc/self/fd')):
    with contextlib.suppress(OSError):  # One was listdir's own.
      mode = os.fstat(file).st_mode
      private = file > 2 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
      if file < 2 or (private and file != requests):
        os.dup2(nothing, file, inheritable=file < 2)
  os.close(nothing)
  # Collections would write to the pages that are shared.
  gc.freeze()


def _tend_once(
  selector: selectors.BaseSelector, requests: socket.socket, live: Live
) -> bool:
  """Does what there is to do; False once the launcher has closed its end."""
  for key, _ in selector.select():
    if key.fileobj is requests:
      message, files, _flags, _address = socket.recv_fds(requests, 1024, 3)
      if not message:
        return False
      number = pickle.loads(message)
      try:
        pid = os.fork()
      except OSError as error:
        requests.send(pickle.dumps((number, 0, error.errno)))
      else:
        if not pid:
          selector.close()
          requests.close()
          _live(live, *files)
        # Here too: whoever is told of the process may kill its group at once.
        with contextlib.suppress(OSError):
          os.setpgid(pid, pid)
        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (number, pid))
        requests.send(pickle.dumps((number, pid, None)))
      for file in files:
        os.close(file)
    else:
      number, pid = key.data
      selector.unregister(key.fileobj)
      os.close(key.fd)
      # What the process started goes with it. Until it is reaped its number stays its.
      kill_group(pid)
      code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
      requests.send(pickle.dumps((number, pid, code)))
  return True


def _live(live: Live, stdin: int, stdout: int, events: int) -> NoReturn:
  """The life of a unit's process."""
  try:
    os.setpgid(0, 0)
    for file, place in ((stdin, 0), (stdout, 1), (stdout, 2)):
      os.dup2(file, place)
    os.close(stdin)
    os.close(stdout)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), _text(1), _text(2)
    sys.argv[:] = ['callsheet.launch.worker']
    commands = os.fdopen(os.dup(0), 'rb')
    _take_on(pickle.load(commands))
    live(commands, events)
  except BaseException:
    traceback.print_exc()
  finally:
    os._exit(1)


def _text(file: int) -> io.TextIOWrapper:
  """As PYTHONUNBUFFERED has it: nothing is lost when the process is killed."""
  raw = io.FileIO(file, 'w', closefd=False)
  return io.TextIOWrapper(raw, errors='backslashreplace', write_through=True)


def _take_on(environment: Mapping[str, str]) -> None:
  os.environ.clear()
  os.environ.update(environment)
  if 'jax' in sys.modules:
    import jax

    platforms = environment.get('JAX_PLATFORMS') or None
    jax.config.update('jax_platforms', platforms)  # type: ignore[no-untyped-call]
  if 'numpy' in sys.modules:
    import numpy

    numpy.random.seed()  # Or every process would draw the same, as `random` knows.


def kill_group(leader: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(leader, signal.SIGKILL)
