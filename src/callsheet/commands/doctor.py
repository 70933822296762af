"""`callsheet doctor`: whether this installation can run, and what would help."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from absl import flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

from callsheet.commands import diagnosis, help, machine, packages
from callsheet.commands.diagnosis import Check
from callsheet.commands.flags import new_flags, parse
from callsheet.errors import UsageError

USAGE = 'callsheet doctor --num_actors=64'
_ABOUT = """

Looks at Python, packages, devices, network, memory, limits and folders, and says what
to do. The exit code is 0 if runs can work here, 1 if something is broken."""
_OWN = ('num_actors', 'runs_directory', 'ports')
_COLOURS = {'ok': 'green', 'warning': 'yellow', 'broken': 'bold red'}


def doctor(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  flags.DEFINE_integer(
    'num_actors', 2, 'Actors that a run shall have.', 1, flag_values=values
  )
  flags.DEFINE_string(
    'runs_directory', 'runs', 'Where the folders of runs are.', flag_values=values
  )
  flags.DEFINE_list('ports', [], 'Ports that shall be free.', flag_values=values)
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {'what is meant to run': _OWN}) + _ABOUT)
    return 0
  if arguments:
    raise UsageError(f'expected flags, got {" ".join(arguments)}; right is: {USAGE}')
  checks, extras = examine(
    values.num_actors, values.runs_directory, _ports(values.ports)
  )
  console = Console(highlight=False)
  console.print(drawn(checks))
  if extras:
    console.print('\n[bold]extras[/]')
    console.print(drawn(extras, standing=False))
  fine = diagnosis.can_run(checks)
  console.print(f'\n{summary(checks)}', soft_wrap=True)
  return 0 if fine else 1


def examine(
  num_actors: int, runs_directory: str, ports: Sequence[int] = ()
) -> tuple[list[Check], list[Check]]:
  """Looks at this machine.

  Args:
    num_actors: that a run shall have.
    runs_directory: where its folder will be.
    ports: that shall be free.

  Returns:
    What a run needs, and what is optional.
  """
  python = machine.python()
  needed = packages.needed()
  wheels = {name: packages.installed(name) for name in diagnosis.WHEELS_OF_OLDEST}
  wanted = ['jax', 'training', *(name for name, found in wheels.items() if found)]
  trials = packages.try_out(
    {n: code for n, code in packages.TRIALS.items() if n in wanted}
  )
  jax = trials['jax']
  version, devices = packages.devices(jax) if jax.fine else ('', [])
  checks = [
    diagnosis.check_python(**python),
    diagnosis.check_packages(needed, trials['training']),
    *diagnosis.check_wheels(python['version'], wheels, trials),
    diagnosis.check_jax(
      jax,
      version,
      devices,
      machine.has_gpu(),
      os.environ.get('JAX_PLATFORMS', ''),
    ),
    *diagnosis.check_network(
      machine.loopback(), {port: machine.port_error(port) for port in ports}
    ),
    diagnosis.check_shared_memory(machine.shared_memory(), machine.memory_error()),
    diagnosis.check_open_files(*machine.open_files(), num_actors),
    diagnosis.check_folder(
      'temporary files',
      machine.folder(tempfile.gettempdir(), with_socket=True),
      'name a short one on this machine: TMPDIR=/tmp',
    ),
    diagnosis.check_folder(
      'run folders',
      machine.folder(runs_directory),
      'name another: --runs_directory=DIRECTORY',
    ),
    diagnosis.check_threads(len(machine.cores()), machine.quota(), os.environ),
  ]
  return checks, diagnosis.check_extras(needed or [], python['version'][:2])


def drawn(checks: Sequence[Check], standing: bool = True) -> Table:
  """A line for each check, and below it what to do.

  Args:
    checks: what was found out.
    standing: whether it is said how each stands.
  """
  table = Table(box=None, show_header=False, pad_edge=False)
  if standing:
    table.add_column(no_wrap=True)
  table.add_column(no_wrap=True, style='bold')
  table.add_column(overflow='fold')
  for check in checks:
    lines = [Text(check.what)]
    if check.to_do:
      lines.append(Text(check.to_do, 'cyan'))
    mark = [Text(check.standing, _COLOURS[check.standing])] if standing else []
    table.add_row(*mark, check.name, Text('\n').join(lines))
  return table


def summary(checks: Sequence[Check]) -> str:
  """One line on all of them."""
  broken = [check.name for check in checks if check.standing == 'broken']
  if broken:
    return f'nothing can run here yet: {", ".join(broken)}'
  warnings = [check.name for check in checks if check.standing == 'warning']
  but = f', but see {", ".join(warnings)}' if warnings else ''
  return f'callsheet run dqn can run here{but}'


def _ports(texts: Sequence[str]) -> list[int]:
  for text in texts:
    if not (text.isdigit() and 0 < int(text) < 65536):
      raise UsageError(
        f'--ports takes numbers from 1 to 65535 with commas between, got {text!r}'
      )
  return [int(text) for text in texts]
