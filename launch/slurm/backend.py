"""Every unit as a step of one Slurm job."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from callsheet.errors import NodeFailed, UsageError
from callsheet.launch.remote.commands import Commands, worker_command
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.ticket import Ticket, carried_path
from callsheet.launch.slurm.allocation import Allocation, given, obtain
from callsheet.launch.slurm.cluster import ask, check, clean_environment
from callsheet.launch.slurm.components import (
  Component,
  allocate_command,
  batch_script,
  components,
  seconds,
  step_command,
)
from callsheet.programs.plan import Plan


@dataclass(frozen=True)
class Slurm:
  """Runs a program as one job: a component for each kind of resources, a step a unit.

  Launched inside of a job, it takes that one. The nodes share a file system with the
  launcher, or have the same files. `Resources(node_selector=...)` knows 'host',
  'constraint', 'partition' and 'gpu' (its type). A unit that restarts avoids nodes that
  are lost, and then may share the cores of others.

  Attributes:
    partition: the cluster's default if None.
    account: that the job is charged to.
    qos: the quality of service.
    reservation: to take the nodes from.
    comment: on the job.
    time_limit: of the job, '90' (minutes), '1:30:00', '2-12:00:00' (days first); the
      partition's default if None.
    nodes: over how many each component is spread at least.
    options: more of sbatch's and salloc's, for each component: '--exclude=n7'.
    fold: whether kinds of resources that differ in cpus and memory alone become one
      component, where each unit may have as much as the largest.
    overlap: whether units share what the job holds, instead of cores of their own.
    requeue: whether a detached job that is pre-empted, or reaches its time limit, is
      queued again.
    queue_limit: seconds that the job may wait for its nodes; None for no limit.
    python: the interpreter on the nodes.
    address: of this machine as the nodes reach it; by default, that of the route there.
    log_directory: a file for each unit's output goes here; None for a temporary folder
      that is kept only if the program fails, or, detached, a new one beside us.
    echo: whether output goes to the terminal too, with the node's name before it.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a worker may take to sign on.
    silence: seconds without a word after which a worker counts as lost.
  """

  partition: str | None = None
  account: str | None = None
  qos: str | None = None
  reservation: str | None = None
  comment: str | None = None
  time_limit: str | None = None
  nodes: int | None = None
  options: tuple[str, ...] = ()
  fold: bool = False
  overlap: bool = False
  requeue: bool = False
  queue_limit: float | None = None
  python: str = sys.executable
  address: str | None = None
  log_directory: str | None = None
  echo: bool = True
  deadline: float | None = 60.0
  arrival: float = 120.0
  silence: float = 45.0
  name: str = 'slurm'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`; returns once the job has its nodes.

    Raises:
      UsageError: there is no Slurm, or it can't give what is asked for.
    """
    parts = self._components(plan)
    granted = given(parts, self.overlap)
    if granted is None:
      check(parts, self)
    logs = Logs(self.log_directory, plan.name, say, self.echo)
    try:
      if granted is None:
        command = allocate_command(plan.name, parts, self)
        granted = obtain(command, len(parts), partial(say, plan.name), self.queue_limit)
      try:
        engine = _SlurmEngine(parts, self, granted, logs)
        return RemoteCrew(
          plan,
          engine,
          self.address or granted.address(),
          deadline=self.deadline,
          arrival=self.arrival,
          silence=self.silence,
        )
      except BaseException:
        granted.release()
        raise
    except BaseException:
      logs.close(failed=False)
      raise

  def dry_run(self, plan: Plan) -> str:
    """See `Described.dry_run`: the commands, and the script of a detached job."""
    parts = self._components(plan)
    worker = worker_command(self.python, carried_path())
    lines = [shlex.join(allocate_command(plan.name, parts, self))]
    for index, part in enumerate(parts):
      group = index if len(parts) > 1 else None
      for unit in part.units:
        step = step_command(unit, part, 'JOB', group, worker, overlap=self.overlap)
        lines.append(shlex.join(step))
    script = batch_script(plan.name, parts, self, 'FOLDER', carried_path())
    return '\n'.join([*lines, '', '# Detached, it is sbatch of this:', script])

  def submit(self, plan: Plan) -> str:
    """See `Detachable.submit`.

    Raises:
      UsageError: there is no Slurm, or it can't give what is asked for.
    """
    from callsheet.launch.remote import controller  # Run as a script, it imports us.

    parts = self._components(plan)
    check(parts, self)
    try:
      folder = os.path.abspath(
        self.log_directory or tempfile.mkdtemp('', f'{plan.name}-', '.')
      )
      os.makedirs(folder, mode=0o700, exist_ok=True)
      inside = replace(self, log_directory=os.path.join(folder, 'logs'), echo=False)
      controller.submit(folder, plan, inside)
      script = os.path.join(folder, 'job.sh')
      with open(script, 'w') as file:
        file.write(batch_script(plan.name, parts, self, folder, carried_path()))
    except OSError as error:
      raise UsageError(
        f"the job's folder can not be written ({error}); name one on the file system "
        'that the nodes share by log_directory=...'
      ) from None
    job = ask('sbatch', '--parsable', script).strip().partition(';')[0]
    return (
      f'Slurm job {job}: {plan.name}\n'
      f'  follow: squeue --jobs={job}; tail -f {os.path.join(folder, "job.log")}\n'
      f'  logs:   {inside.log_directory}\n'
      f'  cancel: scancel {job}'
    )

  def _components(self, plan: Plan) -> tuple[Component, ...]:
    if self.time_limit is not None:
      seconds(self.time_limit)
    if self.nodes is not None and self.nodes < 1:
      raise UsageError(f'nodes={self.nodes}: a component needs one at least')
    for text in (self.comment or '', *self.options):
      if '\n' in text:
        raise UsageError(f'{text!r}: an option of Slurm is one line')
    return components(plan, self.fold)


class _SlurmEngine:
  """See `Engine`."""

  def __init__(
    self,
    parts: tuple[Component, ...],
    options: Slurm,
    allocation: Allocation,
    logs: Logs,
  ) -> None:
    self._options, self._allocation, self._logs = options, allocation, logs
    self._commands = Commands(logs, clean_environment(), signal.SIGTERM)
    self._places = {
      unit: (part, allocation.group(index))
      for index, part in enumerate(parts)
      for unit in part.units
    }
    self._started: set[str] = set()

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """See `Engine.start`."""
    part, group = self._places[unit]
    avoid: set[str] = set()
    overlap = self._options.overlap
    if unit in self._started:
      if reason := self._allocation.over(group):
        raise NodeFailed(unit, reason)
      silent = self._commands.runs(unit)
      avoid, left = self._allocation.lost(unit, group, silent)
      # The cores that it had are gone, or not yet free.
      overlap = overlap or (bool(avoid) and not part.gpus)
      avoid = avoid if left else set()
    self._started.add(unit)
    command = step_command(
      unit,
      part,
      self._allocation.job,
      group,
      worker_command(self._options.python, ticket.path),
      sorted(avoid),
      overlap,
    )

    def explain(code: int, line: str) -> str:
      return self._reason(code, line, group)

    self._commands.start(unit, command, ticket, ended, explain)

  def kill(self, unit: str) -> None:
    """See `Engine.kill`."""
    self._commands.kill(unit)

  def note(self, unit: str, text: str) -> None:
    """See `Engine.note`."""
    self._logs.note(unit, text)

  def log(self, unit: str) -> str:
    """See `Engine.log`."""
    return self._logs.path(unit)

  def close(self, failed: bool) -> None:
    """See `Engine.close`."""
    self._commands.close()
    self._allocation.release()
    self._logs.close(failed)

  def _reason(self, code: int, line: str, group: int | None) -> str:
    """How a step ended; srun adds 128 to the number of a signal."""
    if code == 0:
      return ''
    if over := self._allocation.over(group):
      return over
    if lost := re.search(r'Node failure on (\S+)', line):
      return f'its host {lost[1]} has failed'
    if 128 < code <= 128 + signal.NSIG:
      return f'its process was killed by {signal.Signals(code - 128).name}'
    return f'its process exited with code {code}' + (
      f', saying: {line}' if line else ''
    )
