"""Every unit as a process of this machine.

Where that is sound they are forked off a nursery that the launcher forked before it had
threads, see `nursery`; else they are spawned, for a fork copies the threads' locks.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, BinaryIO, TypeAlias

import cloudpickle

from callsheet.errors import UsageError
from callsheet.launch.accelerators import allot
from callsheet.launch.appending import Appended
from callsheet.launch.crew import Stacks
from callsheet.launch.debugger import Debugger
from callsheet.launch.devices import process_environment, unit_resources
from callsheet.launch.events import Beat, Event, Exited, Failed
from callsheet.launch.local import local_book
from callsheet.launch.nursery import Forked, Nursery, can_fork
from callsheet.launch.nursery_process import kill_group
from callsheet.launch.orders import Orders
from callsheet.launch.stacks import dump_stacks
from callsheet.programs.plan import Plan
from callsheet.programs.resources import Resources

_Process: TypeAlias = 'subprocess.Popen[bytes] | Forked'


@dataclass(frozen=True)
class Processes:
  """Runs a program as processes of this machine.

  Attributes:
    log_directory: a file for each unit's output goes here; None for a temporary folder
      that is kept only if the program fails.
    echo: whether output goes to the terminal too, with the node's name before it.
    deadline: seconds for a call that names none; None to wait for ever.
    fork: whether units may start as forks, with modules as the launcher has them: a
      second sooner, and in shared memory. That takes a launcher with one thread in
      which JAX has not computed, and a unit without accelerators whose environment is
      the launcher's; for both, set OMP_NUM_THREADS, OPENBLAS_NUM_THREADS and
      MKL_NUM_THREADS to 1 before numpy is imported, as `callsheet run` does.
    pdb: whether pdb opens where a node raises an exception, on the launcher's terminal
      or standard input, and at a `breakpoint()`; no call times out then.
  """

  log_directory: str | None = None
  echo: bool = True
  deadline: float | None = 60.0
  fork: bool = True
  pdb: bool = False
  name: str = 'processes'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> ProcessCrew:
    """See `Backend.open`."""
    return ProcessCrew(plan, self, say)


class ProcessCrew:
  """See `Crew`."""

  def __init__(
    self, plan: Plan, options: Processes, say: Callable[[str, str], None]
  ) -> None:
    self._units = plan.units()
    self._accelerators = allot(plan, os.environ)
    self._options, self._say = options, say
    self._processes: dict[str, _Process] = {}
    self._threads: list[threading.Thread] = []
    self._folder = tempfile.mkdtemp(prefix='callsheet-')
    self._logs = options.log_directory or tempfile.mkdtemp(prefix=f'{plan.name}-')
    try:
      os.makedirs(self._logs, exist_ok=True)
    except OSError as error:
      shutil.rmtree(self._folder)
      raise UsageError(
        f'the log folder {self._logs!r} can not be made ({error.strerror}); name one '
        'that can be written: Processes(log_directory=...)'
      ) from None
    deadline = None if options.pdb else options.deadline
    self.book = local_book(plan, self._folder, deadline)
    self._debugger = Debugger.of_launcher(self._folder) if options.pdb else None
    self._nursery = Nursery() if options.fork and can_fork() else None

  def start(self, unit: str, report: Callable[[Event], None]) -> None:
    """See `Crew.start`."""
    nodes = self._units[unit]
    resources = unit_resources(tuple(node.resources for node in nodes))
    environment = process_environment(resources, os.environ)
    environment.update(self._accelerators.get(unit, {}))
    path = [os.path.abspath(entry) for entry in sys.path]
    environment['PYTHONPATH'] = os.pathsep.join(path)
    environment['PYTHONUNBUFFERED'] = '1'
    events_read, events_write = os.pipe()
    process = self._process(resources, environment, events_write)
    os.close(events_write)
    self._processes[unit] = process
    orders = Orders(
      unit, cloudpickle.dumps(nodes), self.book, path, self._folder, self._debugger
    )
    self._note(unit, f'process {process.pid} starts')

    def noted(event: Event) -> None:
      if isinstance(event, Failed):
        self._note(unit, event.failure.traceback or event.failure.reason)
      elif isinstance(event, Exited):
        self._note(unit, event.reason or f'process {process.pid} has ended')
      report(event)

    noted(Beat(unit, {}))  # From here on it can be silent.
    readers = (
      self._thread(self._copy_output, unit, process.stdout),
      self._thread(_read_events, os.fdopen(events_read, 'rb'), noted),
    )
    self._thread(_follow, unit, process, readers, noted)
    try:
      assert process.stdin is not None
      process.stdin.write(pickle.dumps(orders))
      process.stdin.flush()
    except BrokenPipeError:
      pass  # It is gone already; Exited says how.

  def stop(self, node: str) -> None:
    """See `Crew.stop`."""
    unit = next(
      u for u, nodes in self._units.items() if any(n.name == node for n in nodes)
    )
    stdin = self._processes[unit].stdin
    try:
      assert stdin is not None
      stdin.write(f'{node}\n'.encode())
      stdin.flush()
    except BrokenPipeError:
      pass  # It is gone already; Exited says how.

  def kill(self, unit: str) -> None:
    """Kills the unit's process and whatever it started."""
    process = self._processes[unit]
    if process.returncode is None:
      kill_group(process.pid)

  def dump(self, unit: str) -> Stacks:
    """See `Crew.dump`; works where C code holds the interpreter, too."""
    process = self._processes.get(unit)
    if process is None or process.returncode is not None:
      return Stacks(missing='it has no process')
    return dump_stacks(process.pid)

  def log(self, unit: str) -> str:
    """See `Crew.log`."""
    return os.path.join(self._logs, f'{unit.replace("/", "-")}.log')

  def close(self, failed: bool) -> None:
    """See `Crew.close`."""
    for unit, process in self._processes.items():
      self.kill(unit)
      process.wait()
    for thread in self._threads:
      thread.join(2.0)
    for process in self._processes.values():
      for stream in (process.stdin, process.stdout):
        _close(stream)
    if self._nursery is not None:
      self._nursery.close()
    shutil.rmtree(self._folder, ignore_errors=True)
    if self._options.log_directory is None and not failed:
      shutil.rmtree(self._logs, ignore_errors=True)

  def _process(
    self, resources: Resources, environment: dict[str, str], events: int
  ) -> _Process:
    bare = not resources.gpus and not resources.tpu
    if self._nursery is not None and bare and self._nursery.suits(environment):
      with contextlib.suppress(ConnectionError):  # The nursery was killed.
        return self._nursery.fork(environment, events)
    return subprocess.Popen(
      [sys.executable, '-m', 'callsheet.launch.worker', str(events)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      pass_fds=(events,),
      env=environment,
      start_new_session=True,
    )

  def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True, name='processes')
    thread.start()
    self._threads.append(thread)
    return thread

  def _note(self, unit: str, text: str) -> None:
    """Writes to the unit's log what its process does not say itself."""
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    # A full disk must not keep an event from the supervisor.
    with contextlib.suppress(OSError), open(self.log(unit), 'a') as log:
      log.write(f'[callsheet {now}] {text.rstrip()}\n')

  def _copy_output(self, unit: str, output: BinaryIO) -> None:
    with contextlib.closing(Appended(self.log(unit))) as log:
      for line in output:
        log.write(line)
        if self._options.echo:
          self._say(unit, line.decode(errors='replace').rstrip('\n'))


def _close(stream: IO[bytes] | None) -> None:
  try:
    if stream is not None:
      stream.close()
  except OSError:
    pass


def _read_events(events: BinaryIO, report: Callable[[Event], None]) -> None:
  with events:
    while True:
      try:
        report(pickle.load(events))
      except (EOFError, pickle.UnpicklingError):  # A killed process may leave a half.
        return


def _follow(
  unit: str,
  process: _Process,
  readers: tuple[threading.Thread, ...],
  report: Callable[[Event], None],
) -> None:
  # What the process started goes with it. Until it is reaped its number stays its own.
  # The nursery does that for a forked one; or `close` was here first.
  with contextlib.suppress(ChildProcessError):
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    kill_group(process.pid)
  code = process.wait()
  for reader in readers:
    reader.join(1.0)
  report(Exited(unit, _reason(code)))


def _reason(code: int) -> str:
  if code == 0:
    return ''
  if code > 0:
    return f'its process exited with code {code}'
  try:
    name = signal.Signals(-code).name
  except ValueError:
    name = f'signal {-code}'
  return f'its process was killed by {name}'
