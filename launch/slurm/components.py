"""What a program asks of Slurm: a job's components, and the words that ask for them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.launch.remote.commands import worker_command
from callsheet.programs.plan import Plan

if TYPE_CHECKING:
  from callsheet.launch.slurm.backend import Slurm

SELECTORS = ('host', 'constraint', 'partition', 'gpu')
WARNING = 60  # seconds before its end at which a detached job begins to stop


@dataclass(frozen=True)
class Component:
  """Units that need the same, and so form one component of the job.

  Attributes:
    units: their names.
    cpus: of each.
    memory_gb: of each; None for the partition's default.
    gpus: of each.
    selector: what their nodes must be.
  """

  units: tuple[str, ...]
  cpus: float
  memory_gb: float | None
  gpus: int
  selector: tuple[tuple[str, str], ...]

  @property
  def shared(self) -> bool:
    """Whether its units share cores: each needs less than one."""
    return self.cpus < 1 and not self.gpus

  @property
  def tasks(self) -> int:
    """As many as Slurm is asked for: a unit each, or a core each that they share."""
    if self.shared:
      return max(1, math.ceil(len(self.units) * self.cpus))
    return len(self.units)

  @property
  def cores(self) -> int:
    """Of a task."""
    return max(1, math.ceil(self.cpus))

  @property
  def memory(self) -> int | None:
    """Of a core, in MiB."""
    if self.memory_gb is None:
      return None
    total = self.memory_gb * 1e9 / 2**20 * len(self.units)
    return math.ceil(total / (self.tasks * self.cores))

  @property
  def gpu_count(self) -> str:
    """GPUs of a task in Slurm's words: '2', 'a100:2'."""
    kind = dict(self.selector).get('gpu')
    return f'{kind}:{self.gpus}' if kind else str(self.gpus)

  def options(self, backend: Slurm) -> list[str]:
    """What to ask `salloc` or `sbatch` for."""
    selector = dict(self.selector)
    given = {
      'partition': selector.get('partition', backend.partition),
      'account': backend.account,
      'qos': backend.qos,
      'reservation': backend.reservation,
      'comment': backend.comment,
      'time': backend.time_limit,
      'nodes': self._nodes(backend.nodes),
      'ntasks': self.tasks,
      'cpus-per-task': self.cores,
      'mem-per-cpu': None if self.memory is None else f'{self.memory}M',
      'gpus-per-task': self.gpu_count if self.gpus else None,
      'constraint': selector.get('constraint'),
      'nodelist': selector.get('host'),
    }
    words = [f'--{name}={value}' for name, value in given.items() if value is not None]
    # A node that fails takes its units along, not the job.
    return [*words, '--no-kill', *backend.options]

  def _nodes(self, least: int | None) -> str | None:
    if least is None:
      return None
    least = min(least, self.tasks)
    return str(least) if least == self.tasks else f'{least}-{self.tasks}'


def components(plan: Plan, fold: bool = False) -> tuple[Component, ...]:
  """One for each kind of resources that the plan declares.

  Args:
    plan: whose units.
    fold: whether kinds that differ in cpus and memory alone become one, where each
      unit may have as much as the largest.

  Raises:
    UsageError: a node asks for what Slurm has no word for.
  """
  found: dict[object, Component] = {}
  for unit, nodes in plan.units().items():
    needs = unit_resources(tuple(node.resources for node in nodes))
    if needs.tpu is not None:
      raise UsageError(
        f'node {nodes[0].name!r} wants a TPU ({needs.tpu}), which Slurm does not hand '
        "out; name its nodes: Resources(node_selector={'constraint': 'tpu'})"
      )
    for key in needs.node_selector:
      if key not in SELECTORS:
        raise UsageError(
          f'node {nodes[0].name!r} selects nodes by {key!r}; the slurm backend knows '
          f"{', '.join(SELECTORS)}: Resources(node_selector={{'constraint': 'avx512'}})"
        )
    selector = tuple(sorted(needs.node_selector.items()))
    new = Component((unit,), needs.cpus, needs.memory_gb, needs.gpus, selector)
    kind = (needs.gpus, selector) if fold else replace(new, units=())
    old = found.get(kind)
    found[kind] = new if old is None else _merge(old, new)
  return tuple(found.values())


def _merge(one: Component, other: Component) -> Component:
  memory = [m for m in (one.memory_gb, other.memory_gb) if m is not None]
  return replace(
    one,
    units=one.units + other.units,
    cpus=max(one.cpus, other.cpus),
    memory_gb=max(memory, default=None),
  )


def allocate_command(
  name: str, parts: Sequence[Component], backend: Slurm
) -> list[str]:
  """Gets the nodes, and holds them until its standard input ends."""
  words: list[str] = ['salloc', f'--job-name={name}']
  for index, part in enumerate(parts):
    words += ([':'] if index else []) + part.options(backend)
  return [*words, 'cat']


def step_command(
  unit: str,
  part: Component,
  job: str,
  group: int | None,
  worker: Sequence[str],
  avoid: Sequence[str] = (),
  overlap: bool = False,
) -> list[str]:
  """Runs a unit's worker in the job.

  Args:
    unit: which.
    part: its component.
    job: the id.
    group: the component's index; None where the job is not heterogeneous.
    worker: the command.
    avoid: nodes that seem to be lost.
    overlap: whether it may use what other units have, too.
  """
  words = ['srun', f'--jobid={job}']
  if group is not None:
    words.append(f'--het-group={group}')
  words += [f'--job-name={unit}', '--nodes=1', '--ntasks=1']
  words += [f'--cpus-per-task={part.cores}', '--mem=0', '--mpi=none', '--quiet']
  words.append(f'--gpus-per-task={part.gpu_count}' if part.gpus else '--gres=none')
  words.append('--overlap' if overlap or part.shared else '--exact')
  if avoid:
    words.append(f'--exclude={",".join(avoid)}')
  return [*words, *worker]


_SCRIPT = """#!/bin/bash
{options}

# SIGTERM comes before the time limit and on pre-emption: the nodes stop in order.
stopped=
trap 'stopped=yes; kill -TERM "$controller"' TERM
{command} &
controller=$!
wait "$controller"; code=$?
while kill -0 "$controller" 2>/dev/null; do wait "$controller"; code=$?; done
{requeue}exit "$code"
"""

# A job that was cancelled is no longer running, and must not come back.
_REQUEUE = """state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T | sort -u)
if [ -n "$stopped" ] && [ "$state" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
"""


def batch_script(
  name: str,
  parts: Sequence[Component],
  backend: Slurm,
  folder: str,
  path: Sequence[str],
) -> str:
  """The job that runs the launcher itself, beside the first component's units."""
  lines: list[str] = []
  requeue = '--requeue' if backend.requeue else '--no-requeue'
  for index, part in enumerate(parts):
    lines += ['hetjob'] if index else [f'--job-name={name}', f'--chdir={folder}']
    if not index:
      lines += ['--output=job.log', '--open-mode=append', f'--signal=B:TERM@{WARNING}']
    lines += [*part.options(backend), requeue]
  controller = worker_command(backend.python, path)[:-1]
  return _SCRIPT.format(
    options='\n'.join(f'#SBATCH {shlex.quote(line)}' for line in lines),
    command=shlex.join([*controller, 'callsheet.launch.remote.controller', folder]),
    requeue=_REQUEUE if backend.requeue else '',
  )


_TIME = re.compile(r'(\d+-)?\d+(:\d+){0,2}')


def seconds(limit: str) -> float:
  """A time limit in Slurm's notation: '90' minutes, '1:30:00', '2-12', 'infinite'.

  Raises:
    UsageError: it is none.
  """
  if limit.lower() in ('infinite', 'unlimited'):
    return math.inf
  if not _TIME.fullmatch(limit):
    raise UsageError(
      f"time_limit={limit!r} is no time; right are '90' (minutes), '1:30:00' and "
      "'2-12:00:00' (days first)"
    )
  days, _, rest = limit.rpartition('-')
  parts = [int(part) for part in rest.split(':')]
  if days:
    units: Mapping[int, tuple[int, ...]] = {n: (3600, 60, 1)[:n] for n in (1, 2, 3)}
  else:
    units = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}
  return int(days or 0) * 86400.0 + sum(map(int.__mul__, parts, units[len(parts)]))
