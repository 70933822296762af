"""The Slurm job that a program runs in, from the queue to its end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from callsheet.errors import UsageError
from callsheet.launch.remote.routes import address_towards
from callsheet.launch.slurm.cluster import ask, clean_environment
from callsheet.launch.slurm.components import Component

_LOOK = 0.1
_SAY = 5.0  # seconds between two looks at why the job still waits
_GONE = 10.0  # seconds that a job may take to end
_DOWN = ('down', 'drain', 'fail', 'unk', 'no_respond', 'power', 'inval')
_OVER = {
  'CANCELLED': 'was cancelled',
  'COMPLETED': 'is over',
  'COMPLETING': 'was ended from outside',
  'NODE_FAIL': 'has lost its nodes',
  'PREEMPTED': 'was pre-empted',
  'TIMEOUT': 'has reached its time limit',
}


class Allocation:
  """Nodes that Slurm has granted.

  Args:
    job: the id; of a heterogeneous job, its leader's.
    sizes: how many components the job has.
    holder: the process that holds them; None if they are somebody else's to give back.
  """

  def __init__(
    self, job: str, sizes: int, holder: subprocess.Popen[str] | None = None
  ) -> None:
    self.job, self.sizes, self._holder = job, sizes, holder

  def group(self, index: int) -> int | None:
    """The `--het-group` of a component; None where the job has but one."""
    return index if self.sizes > 1 else None

  def over(self, group: int | None) -> str:
    """How the component's share of the job ended; empty while it runs."""
    try:
      shown = ask('scontrol', 'show', 'job', self.job)
    except UsageError as error:
      gone = 'Invalid job id' in str(error)
      return f'Slurm job {self.job} is over' if gone else ''
    for block in shown.split('\n\n'):
      state = re.search(r'JobState=(\w+)', block)
      offset = re.search(r'HetJobOffset=(\d+)', block)
      if state is None or (group is not None and offset and int(offset[1]) != group):
        continue
      if state[1] not in ('RUNNING', 'SUSPENDED'):
        how = _OVER.get(state[1], f'is {state[1]}')
        return f'Slurm job {self.job} {how}'
      return ''
    return f'Slurm job {self.job} is over'

  def _nodes(self, group: int | None) -> list[str]:
    """The component's nodes, as Slurm abbreviates them: n[1-3]."""
    listed = ask('squeue', '-h', f'--jobs={self.job}', '-o%i|%N').splitlines()
    found = (line.strip().partition('|') for line in listed)
    return [
      names
      for index, _, names in found
      if names and (group is None or index.endswith(f'+{group}'))
    ]

  def lost(self, unit: str, group: int | None, silent: bool) -> tuple[set[str], bool]:
    """The component's nodes that are lost, and whether others are left.

    Args:
      unit: that is about to start again.
      group: its component's.
      silent: whether its last step has not ended: Slurm may not know yet that the node
        is lost.
    """
    try:
      nodes = ','.join(self._nodes(group))
      states = ask('sinfo', '-h', '-N', f'--nodes={nodes}', '-o%N|%T')
      steps = ask('squeue', '-h', '-s', f'--jobs={self.job}', '-o%j|%N')
    except UsageError:
      return set(), True  # Slurm does not answer just now; srun waits until it does.
    bad: set[str] = set()
    good: set[str] = set()
    for line in states.splitlines():
      name, _, state = line.strip().partition('|')
      down = state.endswith('*') or state.startswith(_DOWN)
      (bad if down else good).add(name)
    for line in steps.splitlines() if silent else ():
      name, _, node = line.strip().rpartition('|')
      if name == unit:
        bad.add(node)
    return bad, bool(good - bad)

  def address(self) -> str:
    """Of this host, as the job's nodes reach it."""
    shown = ask('scontrol', 'show', 'node', ','.join(self._nodes(None)))
    addresses = [
      address_towards(there) for there in re.findall(r'NodeAddr=(\S+)', shown)
    ]
    # This host may be one of the nodes, and then it takes the loopback to itself.
    outside = (each for each in addresses if not each.startswith('127.'))
    return next(outside, addresses[0])

  def release(self) -> None:
    """Ends the job, if it is ours, and waits until Slurm has forgotten it."""
    if self._holder is None:
      return
    assert self._holder.stdin is not None
    with contextlib.suppress(OSError):
      self._holder.stdin.close()
    until = time.monotonic() + _GONE
    try:
      with contextlib.suppress(UsageError):
        ask('scancel', '--quiet', self.job)
      with contextlib.suppress(UsageError):
        while ask('squeue', '-h', f'--jobs={self.job}') and time.monotonic() < until:
          time.sleep(_LOOK)
    finally:
      _end(self._holder)


def given(parts: Sequence[Component], overlap: bool) -> Allocation | None:
  """The job that this process runs in already, if it does.

  Args:
    parts: what the program needs.
    overlap: whether units may share cores.

  Raises:
    UsageError: it is too small.
  """
  job = os.environ.get('SLURM_JOB_ID')
  if job is None:
    return None
  size = int(os.environ.get('SLURM_HET_SIZE', '1'))
  if size > 1:
    if size != len(parts):
      raise UsageError(
        f'Slurm job {job} has {size} components, the program needs {len(parts)}; '
        'launch it from outside of the job, and it makes one that fits'
      )
    return Allocation(os.environ.get('SLURM_JOB_ID_HET_GROUP_0', job), size)
  cpus = sum(
    int(count) * int(times or 1)
    for count, times in re.findall(
      r'(\d+)(?:\(x(\d+)\))?', os.environ.get('SLURM_JOB_CPUS_PER_NODE', '')
    )
  )
  needed = sum(part.tasks * part.cores for part in parts)
  if cpus and needed > cpus and not overlap:
    raise UsageError(
      f'the program needs {needed} cpus, Slurm job {job} that it is launched in has '
      f'{cpus}; launch it from outside of the job, or let units share: '
      'Slurm(overlap=True)'
    )
  return Allocation(job, 1)


def obtain(
  command: Sequence[str],
  sizes: int,
  say: Callable[[str], None],
  limit: float | None,
) -> Allocation:
  """Runs `salloc` and waits until the nodes are there.

  If this process dies, its end of the pipe closes, and `salloc` gives the nodes back.

  Args:
    command: see `allocate_command`.
    sizes: the number of components.
    say: told what the job waits for.
    limit: seconds that it may wait; None for no limit.

  Raises:
    UsageError: Slurm refuses, or the time is up.
  """
  holder = subprocess.Popen(
    command,
    env=clean_environment(),
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  heard: list[str] = []
  granted = threading.Event()

  def listen() -> None:
    assert holder.stderr is not None
    for line in holder.stderr:
      heard.append(line.strip())
      if 'Granted job allocation' in line:
        granted.set()
    holder.stderr.close()

  threading.Thread(target=listen, daemon=True, name='salloc').start()
  begun = said_at = time.monotonic()
  said = ''
  try:
    while not granted.wait(_LOOK):
      if holder.poll() is not None and not granted.is_set():
        why = next((line for line in heard if 'error' in line), ' '.join(heard[:1]))
        raise UsageError(f'Slurm does not take the job: {why}')
      now = time.monotonic()
      job = _job(heard)
      if job is None or now - said_at < _SAY:
        continue
      said_at = now
      reasons = ask('squeue', '-h', f'--jobs={job}', '-o%r').split('\n')
      why = ', '.join(sorted({reason for reason in reasons if reason}))
      if why != said:
        say(f'Slurm job {job} waits for nodes: {why}')
        said = why
      if limit is not None and now - begun > limit:
        raise UsageError(
          f'Slurm job {job} was still waiting after {limit:g} s: {why}; ask for less, '
          'or let it wait for longer: Slurm(queue_limit=None)'
        )
    job = _job(heard)
    assert job is not None
    say(f'Slurm job {job} has its nodes')
    return Allocation(job, sizes, holder)
  except BaseException:
    if (job := _job(heard)) is not None:
      Allocation(job, sizes, holder).release()
    _end(holder)
    raise


def _job(heard: Sequence[str]) -> str | None:
  found = (re.search(r'job allocation (\d+)', line) for line in heard)
  return next((match[1] for match in found if match), None)


def _end(holder: subprocess.Popen[str]) -> None:
  with contextlib.suppress(OSError):
    if holder.stdin is not None:
      holder.stdin.close()
  try:
    holder.wait(2.0)
  except subprocess.TimeoutExpired:
    holder.kill()
    holder.wait()
