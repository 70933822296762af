"""Every unit on one of a list of hosts, by ssh or another command that gets there."""

from __future__ import annotations

import itertools
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.launch.remote.commands import Commands, worker_command
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.routes import address_towards
from callsheet.launch.remote.ticket import Ticket, carried_path
from callsheet.programs.plan import Plan

_SSH = ('ssh', '-oBatchMode=yes', '-oConnectTimeout=10', '{host}', '{command}')
_UNREACHABLE = 255  # ssh's own exit code


@dataclass(frozen=True)
class Ssh:
  """Runs a program on hosts that share a file system, or have the same files.

  Units go to the hosts in turn; `Resources(node_selector={'host': 'a'})` names one. A
  unit that restarts goes to the next host if its own could not be reached, or has
  fallen silent.

  Attributes:
    hosts: names that the command takes.
    command: how to run something on '{host}'; '{command}' stands for the command as one
      word for a shell over there; left out, it is added as separate words.
    python: the interpreter there.
    address: of this machine as the hosts reach it; by default, that of the route to
      the first of them.
    log_directory: a file for each unit's output goes here; None for a temporary folder
      that is kept only if the program fails.
    echo: whether output goes to the terminal too, with the node's name before it.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a worker may take to sign on.
    silence: seconds without a word after which a worker counts as lost.
  """

  hosts: tuple[str, ...] = ()
  command: tuple[str, ...] = _SSH
  python: str = sys.executable
  address: str | None = None
  log_directory: str | None = None
  echo: bool = True
  deadline: float | None = 60.0
  arrival: float = 60.0
  silence: float = 45.0
  name: str = 'ssh'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`.

    Raises:
      UsageError: there are no hosts, no such command, or a node asks for another host.
    """
    self._check(plan)
    address = self.address or address_towards(self.hosts[0])
    logs = Logs(self.log_directory, plan.name, say, self.echo)
    return RemoteCrew(
      plan,
      _SshEngine(plan, self, logs),
      address,
      deadline=self.deadline,
      arrival=self.arrival,
      silence=self.silence,
    )

  def dry_run(self, plan: Plan) -> str:
    """See `Described.dry_run`: the commands that would start the workers."""
    self._check(plan)
    placed = _places(plan, self.hosts)
    return '\n'.join(
      f'{unit}: {shlex.join(_command(self, place.host, carried_path()))}'
      for unit, place in placed.items()
    )

  def _check(self, plan: Plan) -> None:
    if not self.hosts:
      raise UsageError("no hosts: Ssh(hosts=('a', 'b')), or --ssh_hosts=a,b")
    if shutil.which(self.command[0]) is None:
      raise UsageError(
        f'there is no {self.command[0]!r} on this machine to reach the hosts with; '
        'install it, or name another command: Ssh(command=(...))'
      )
    for node in plan.nodes:
      wanted = node.resources.node_selector.get('host')
      if wanted is not None and wanted not in self.hosts:
        raise UsageError(
          f'node {node.name!r} wants host {wanted!r}; there are {", ".join(self.hosts)}'
        )


@dataclass
class _Place:
  """Where a unit goes: to the hosts by turns, or to the one that it names."""

  hosts: tuple[str, ...]
  turn: int

  @property
  def host(self) -> str:
    return self.hosts[self.turn % len(self.hosts)]


def _places(plan: Plan, hosts: tuple[str, ...]) -> dict[str, _Place]:
  places = {}
  turns = itertools.count()
  for unit, nodes in plan.units().items():
    wanted = unit_resources(tuple(n.resources for n in nodes)).node_selector.get('host')
    places[unit] = _Place((wanted,), 0) if wanted else _Place(hosts, next(turns))
  return places


def _command(options: Ssh, host: str, path: tuple[str, ...]) -> list[str]:
  there = worker_command(options.python, path)
  joined = shlex.join(there)
  words = [
    w.replace('{command}', joined).replace('{host}', host) for w in options.command
  ]
  placed = any('{command}' in word for word in options.command)
  return words if placed else [*words, *there]


class _SshEngine:
  """See `Engine`."""

  def __init__(self, plan: Plan, options: Ssh, logs: Logs) -> None:
    self._options, self._logs = options, logs
    self._commands = Commands(logs)
    self._places = _places(plan, options.hosts)

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """See `Engine.start`."""
    place = self._places[unit]
    if self._commands.runs(unit):
      place.turn += 1  # The last life fell silent there, or never came.
    host = place.host

    def gone(reason: str) -> None:
      if f'code {_UNREACHABLE}' in reason:
        place.turn += 1
        reason = f'host {host} could not be reached: {self._logs.last_line(unit)}'
      ended(reason)

    self._commands.start(unit, _command(self._options, host, ticket.path), ticket, gone)

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
    self._logs.close(failed)
