"""What Slurm says about its cluster, and what it can't give to a program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from callsheet.errors import UsageError
from callsheet.launch.slurm.components import Component, seconds

if TYPE_CHECKING:
  from callsheet.launch.slurm.backend import Slurm

_ANSWER = 10.0  # seconds that the controller may take
_COMMANDS = ('salloc', 'sbatch', 'scancel', 'scontrol', 'sinfo', 'squeue', 'srun')
# The job around us must not become the defaults of what is submitted.
_OURS = ('SLURM_', 'SALLOC_', 'SBATCH_', 'SRUN_')
_KEPT = ('SLURM_CONF', 'SLURM_CONF_SERVER', 'SLURM_JWT')


def clean_environment() -> dict[str, str]:
  """This process's, without what Slurm's commands would read options from."""
  return {
    name: value
    for name, value in os.environ.items()
    if name in _KEPT or not name.startswith(_OURS)
  }


def ask(*command: str) -> str:
  """What a command of Slurm's prints.

  Raises:
    UsageError: it fails, or has no answer in time.
  """
  try:
    done = subprocess.run(
      command,
      env=clean_environment(),
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=_ANSWER,
    )
  except subprocess.TimeoutExpired:
    raise UsageError(
      f'Slurm has not answered {command[0]!r} within {_ANSWER:g} s: see whether '
      'slurmctld is up (scontrol ping)'
    ) from None
  except FileNotFoundError:
    raise _missing(command[0]) from None
  if done.returncode:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    raise UsageError(f'{" ".join(command)}: {said[0] if said else "failed"}')
  return done.stdout


def _missing(command: str) -> UsageError:
  return UsageError(
    f'there is no {command!r} on this machine: launch from a login node of the '
    "cluster, or install Slurm's commands (Debian: apt-get install slurm-client)"
  )


@dataclass(frozen=True)
class _Node:
  name: str
  cpus: int
  memory: int
  gpus: int
  features: frozenset[str]

  def room(self, part: Component) -> int:
    """How many tasks of a component fit onto it."""
    fits = [self.cpus // part.cores]
    if part.memory is not None:
      fits.append(self.memory // (part.memory * part.cores))
    if part.gpus:
      fits.append(self.gpus // part.gpus)
    return min(fits)


def check(parts: Sequence[Component], backend: Slurm) -> None:
  """Refuses what the cluster can't give, before anything is submitted.

  Raises:
    UsageError: one line with the numbers.
  """
  for command in _COMMANDS:
    if shutil.which(command) is None:
      raise _missing(command)
  try:
    ask('scontrol', 'ping')
  except UsageError as error:
    raise UsageError(
      f"Slurm's controller can not be reached ({error}): see SLURM_CONF or "
      '/etc/slurm/slurm.conf, and whether slurmctld runs there'
    ) from None
  limits: dict[str, str] = {}
  usual = ''
  for line in ask('sinfo', '--noheader', '--format=%P|%l').splitlines():
    name, _, limit = line.strip().partition('|')
    limits[name.rstrip('*')] = limit
    usual = name.rstrip('*') if name.endswith('*') else usual
  for part in parts:
    selector = dict(part.selector)
    partition = selector.get('partition') or backend.partition or usual
    if partition not in limits:
      names = ', '.join(sorted(limits))
      if not partition:
        raise UsageError(f'Slurm has no default partition; name one of {names}')
      raise UsageError(f'there is no partition {partition!r}; there are {names}')
    longest = limits[partition]
    asked = backend.time_limit
    if asked is not None and seconds(asked) > seconds(longest):
      raise UsageError(
        f'time_limit={asked!r} is longer than partition {partition!r} allows: {longest}'
      )
    _fits(part, partition, backend)
  _fits_together(parts, backend)


def _fits(part: Component, partition: str, backend: Slurm) -> None:
  selector = dict(part.selector)
  nodes = _nodes(partition)
  host, feature = selector.get('host'), selector.get('constraint')
  if host is not None:
    wanted = set(ask('scontrol', 'show', 'hostnames', host).split())
    if unknown := wanted - {node.name for node in nodes}:
      names = ', '.join(node.name for node in nodes)
      raise UsageError(
        f'node {part.units[0]!r} wants host {", ".join(sorted(unknown))!r}; partition '
        f'{partition!r} has {names}'
      )
    nodes = [node for node in nodes if node.name in wanted]
  # An expression ('a&b', 'a|b') is left to Slurm.
  if feature is not None and re.fullmatch(r'\w+', feature):
    nodes = [node for node in nodes if feature in node.features]
    if not nodes:
      raise UsageError(
        f'node {part.units[0]!r} wants nodes with {feature!r}; partition '
        f'{partition!r} has none'
      )
  if backend.nodes is not None and min(backend.nodes, part.tasks) > len(nodes):
    raise UsageError(
      f'nodes={backend.nodes}, but partition {partition!r} has {len(nodes)} that fit'
    )
  for what, asked, most in (
    ('cpus', part.cores, max((node.cpus for node in nodes), default=0)),
    (
      'MiB of memory',
      (part.memory or 0) * part.cores,
      max((node.memory for node in nodes), default=0),
    ),
    ('gpus', part.gpus, max((node.gpus for node in nodes), default=0)),
  ):
    if asked > most:
      raise UsageError(
        f'node {part.units[0]!r} asks for {asked} {what}; the largest node of '
        f'partition {partition!r} has {most}'
      )
  room = sum(node.room(part) for node in nodes)
  if room < part.tasks:
    raise UsageError(
      f'the program asks for {part.tasks} times {_described(part)} '
      f'({", ".join(part.units[:3])}{", ..." if len(part.units) > 3 else ""}); '
      f'partition {partition!r} has room for {room}'
    )


def _fits_together(parts: Sequence[Component], backend: Slurm) -> None:
  """Slurm gives each component nodes of its own."""
  names = {
    dict(part.selector).get('partition') or backend.partition or '' for part in parts
  }
  there = {
    node
    for name in names
    for node in ask(
      'sinfo', '--noheader', '--Node', '--format=%N', *([f'-p{name}'] if name else [])
    ).split()
  }
  if len(parts) > len(there):
    kinds = '; '.join(_described(part) for part in parts)
    raise UsageError(
      f'the program has {len(parts)} kinds of Resources ({kinds}), and Slurm gives '
      f'each of them nodes of its own: there are {len(there)}; declare alike what may '
      'share a node, or take Slurm(fold=True)'
    )


def _described(part: Component) -> str:
  words = [f'{part.cores} cpus']
  if part.memory is not None:
    words.append(f'{part.memory * part.cores} MiB')
  if part.gpus:
    words.append(f'{part.gpus} gpus')
  return ', '.join(words + [f'{key} {value}' for key, value in part.selector])


def _nodes(partition: str) -> list[_Node]:
  found = []
  form = '--format=%N|%c|%m|%G|%f'
  for line in ask(
    'sinfo', '--noheader', '--Node', f'--partition={partition}', form
  ).splitlines():
    name, cpus, memory, gres, features = line.strip().split('|')
    gpus = sum(int(n) for n in re.findall(r'gpu(?::[^:,()]+)?:(\d+)', gres))
    found.append(
      _Node(name, int(cpus), int(memory), gpus, frozenset(features.split(',')))
    )
  return found
