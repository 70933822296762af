"""From a program to a running one: `launch` and `start`."""

from __future__ import annotations

import contextlib
import difflib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import NoReturn

from callsheet.errors import UsageError
from callsheet.launch.crew import Backend
from callsheet.launch.kubernetes.backend import Kubernetes
from callsheet.launch.launchpad.backend import Launchpad
from callsheet.launch.processes import Processes
from callsheet.launch.ray.backend import Ray
from callsheet.launch.slurm.backend import Slurm
from callsheet.launch.ssh import Ssh
from callsheet.launch.supervisor import Running
from callsheet.launch.terminal import Terminal
from callsheet.launch.threads import Threads
from callsheet.programs.plan import Plan
from callsheet.programs.program import Program

BACKENDS: Mapping[str, Callable[..., Backend]] = MappingProxyType(
  {
    'kubernetes': Kubernetes,
    'launchpad': Launchpad,
    'processes': Processes,
    'ray': Ray,
    'slurm': Slurm,
    'ssh': Ssh,
    'threads': Threads,
  }
)


def backend_of(backend: str | Backend, **options: object) -> Backend:
  """The backend of this name with these options, or the one that was given.

  Raises:
    UsageError: there is none of this name.
  """
  if not isinstance(backend, str):
    return backend
  if backend not in BACKENDS:
    near = difflib.get_close_matches(backend, BACKENDS, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise UsageError(
      f'no launch backend {backend!r}; {hint}there are {", ".join(sorted(BACKENDS))}'
    )
  return BACKENDS[backend](**options)


def start(
  program: Program | Plan,
  backend: str | Backend = 'threads',
  *,
  grace: float = 10.0,
  terminal: Terminal | None = None,
) -> Running:
  """Starts a program and returns at once.

  ```
  with start(program, 'processes') as running:
    while not running.wait(timeout=1.0):
      print(running.client(counter).counts())
  ```

  Args:
    program: a program, or the plan of one.
    backend: its name, or one with options: 'threads', Processes(log_directory='logs').
    grace: seconds that each node has to end by itself when the program stops.
    terminal: where the nodes' output goes.

  Raises:
    GraphError: the program is not complete.
    UsageError: there is no such backend, or it can't run this program.
  """
  chosen = backend_of(backend)
  plan = program if isinstance(program, Plan) else program.plan()
  say = (terminal or Terminal()).say
  running = Running(plan, chosen.open(plan, say), say, grace)
  try:
    running.start()
  except BaseException:
    running.stop()
    raise
  return running


def launch(
  program: Program | Plan, backend: str | Backend = 'threads', *, grace: float = 10.0
) -> None:
  """Runs a program to its end.

  It ends well when a node that `ends_program` returns from its `run`, or when every
  `run` has returned. Ctrl-C and SIGTERM stop its nodes in order, a second one at once.

  Args:
    program: a program, or the plan of one.
    backend: its name, or one with options: 'threads', Processes(log_directory='logs').
    grace: seconds that each node has to end by itself when the program stops.

  Raises:
    NodeFailed: the first node that failed for good, with its traceback and its log.
    GraphError: the program is not complete.
    UsageError: there is no such backend, or it can't run this program.
  """
  with terminated_like_interrupted(), start(program, backend, grace=grace) as running:
    running.wait()


class Terminated(KeyboardInterrupt):
  """SIGTERM came: what a cluster sends to what it is about to take away."""


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
  """SIGTERM raises a KeyboardInterrupt inside, as Ctrl-C does; main thread alone."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated

  before = signal.signal(signal.SIGTERM, interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
