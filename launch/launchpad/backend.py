"""Every unit as a node of a Launchpad program on this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.launch.accelerators import allot
from callsheet.launch.launchpad.engine import LaunchpadEngine
from callsheet.launch.launchpad.groups import described, labels, worker_pools
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.logs import Logs
from callsheet.programs.plan import Plan
from callsheet.programs.resources import Never

LAUNCH_TYPES = ('local_mp', 'local_mt', 'vertex_ai')
TERMINALS = (
  'current_terminal',
  'output_to_files',
  'tmux_session',
  'byobu_session',
  'gnome-terminal',
  'gnome-terminal-tabs',
  'xterm',
)
_ADDRESS = '127.0.0.1'


@dataclass(frozen=True)
class Launchpad:
  """Runs a program by Launchpad, a node for each unit, in Launchpad's own processes.

  Launchpad itself gets a process of its own, for it takes over the signals of the one
  that it is called in. It doesn't restart nodes; a unit that restarts is launched anew,
  as a Launchpad program of one node.

  Attributes:
    launch_type: 'local_mp' for processes; 'local_mt' for threads of one process, which
      can't be restarted; 'vertex_ai' for a dry run alone.
    terminal: Launchpad's name of where output goes: 'current_terminal',
      'output_to_files', 'tmux_session' and so on.
    log_directory: a file for each unit's output goes here, except with the terminals
      that keep it to themselves; None for a temporary folder that is kept only if the
      program fails.
    echo: whether output goes to the terminal too, with the node's name before it.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a worker may take to sign on, Launchpad's start included.
    silence: seconds without a word after which a worker counts as lost.
  """

  launch_type: str = 'local_mp'
  terminal: str = 'current_terminal'
  log_directory: str | None = None
  echo: bool = True
  deadline: float | None = 60.0
  arrival: float = 120.0
  silence: float = 45.0
  name: str = 'launchpad'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`.

    Raises:
      UsageError: Launchpad is missing or can't run this plan here.
    """
    self._check(plan)
    require_launchpad()
    if self.launch_type == 'vertex_ai':
      raise UsageError(_no_vertex_ai())
    given = allot(plan, os.environ)
    logs = Logs(self.log_directory, plan.name, say, self.echo)
    engine = LaunchpadEngine(plan, self.launch_type, self.terminal, logs, given)
    try:
      return RemoteCrew(
        plan,
        engine,
        _ADDRESS,
        deadline=self.deadline,
        arrival=self.arrival,
        silence=self.silence,
      )
    except BaseException:
      engine.close(failed=False)
      raise

  def dry_run(self, plan: Plan) -> str:
    """The Launchpad program: its groups, and what each node or worker pool needs.

    Raises:
      UsageError: Launchpad can't run this plan.
    """
    self._check(plan)
    groups: dict[str, list[str]] = {}
    for unit, label in labels(plan).items():
      groups.setdefault(label, []).append(unit)
    lines = [f'lp.Program({plan.name!r}), launch_type={self.launch_type!r}']
    if self.launch_type == 'local_mp':
      lines[0] += f', terminal={self.terminal!r}'
    lines += [f'group {label}: {", ".join(units)}' for label, units in groups.items()]
    if self.launch_type == 'vertex_ai':
      for index, pool in enumerate(worker_pools(plan)):
        lines.append(
          f'workerpool{index}: {len(pool.units)} x ({described(pool.resources)}): '
          f'{", ".join(pool.units)}'
        )
    else:
      lines += [f'node {n.name}: {described(n.resources)}' for n in plan.nodes]
    return '\n'.join(lines)

  def _check(self, plan: Plan) -> None:
    if self.launch_type not in LAUNCH_TYPES:
      raise UsageError(
        f'no launch type {self.launch_type!r}; there are {", ".join(LAUNCH_TYPES)}'
      )
    if self.terminal not in TERMINALS:
      raise UsageError(
        f'no terminal {self.terminal!r}; Launchpad has {", ".join(TERMINALS)}'
      )
    for node in plan.nodes:
      if self.launch_type == 'local_mt' and not isinstance(node.restart, Never):
        raise UsageError(
          f'node {node.name!r} has {node.restart}, and a thread of Launchpad can not '
          "be restarted: take launch_type='local_mp', or restart=Never()"
        )
      if self.launch_type != 'vertex_ai':
        _check_resources(node.name, node.resources.hosts, node.resources.cpus)


def _check_resources(node: str, hosts: int, cpus: float) -> None:
  """Refuses what this machine has not got."""
  if hosts > 1:
    raise UsageError(
      f'node {node!r} asks for {hosts} hosts; Launchpad runs on this one alone'
    )
  there = os.cpu_count() or 1
  if cpus > there:
    raise UsageError(
      f'node {node!r} asks for {cpus:g} cpus; this machine has {there} for Launchpad'
    )


def require_launchpad() -> None:
  """Checks that Launchpad is installed, without importing it.

  Raises:
    UsageError: it is not.
  """
  if importlib.util.find_spec('launchpad') is None:
    version = '.'.join(map(str, sys.version_info[:2]))
    other = '' if version == '3.10' else f' Python 3.10 (this is {version}) with'
    raise UsageError(
      f"Launchpad is not installed; it needs{other} pip install 'dm-launchpad==0.5.2' "
      "'tensorflow-cpu==2.8.4' 'protobuf==3.19.6'"
    )


def _no_vertex_ai() -> str:
  missing = ['a Google Cloud project with its credentials', 'an image of your code']
  if importlib.util.find_spec('xmanager') is None:
    missing.insert(0, 'xmanager (pip install xmanager)')
  return (
    "launch_type='vertex_ai' is for a dry run: to launch there, Launchpad needs "
    f'{", ".join(missing)}; here, take local_mp'
  )
