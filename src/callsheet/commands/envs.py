"""`callsheet envs [PATTERN]`: the environments that can be run here."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from callsheet.commands import help
from callsheet.commands.flags import new_flags, parse
from callsheet.errors import UsageError
from callsheet.nodes.environment_families import FAMILIES, Family, near

USAGE = 'callsheet envs [PATTERN]'
_ABOUT = """

Lists the families of environments: what is installed, what would install the others,
and names for --env. With a PATTERN, such as `pong` or `dm_control/*-run`, all names
that it is found in."""
_SHOWN = 4


def envs(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {}) + _ABOUT)
    return 0
  if len(arguments) > 1:
    raise UsageError(
      f'expected one pattern, got {" ".join(arguments)}; right is: {USAGE}'
    )
  console = Console(highlight=False)
  if arguments:
    for line in _matching(arguments[0]):
      console.print(line, soft_wrap=True, markup=False)
  else:
    console.print(_overview(FAMILIES))
  return 0


def _matching(pattern: str) -> list[str]:
  """All names that match.

  Raises:
    UsageError: none does.
  """
  known = [name for family in FAMILIES for name in family.names()]
  wanted = pattern.lower()
  if not any(character in wanted for character in '*?['):
    wanted = f'*{wanted}*'
  found = [name for name in known if fnmatch.fnmatchcase(name.lower(), wanted)]
  if not found:
    raise UsageError(
      f'no installed environment matches {pattern!r}: ' + (near(pattern, known))
    )
  return found


def _overview(families: Sequence[Family]) -> Group:
  table = Table(box=None, pad_edge=False, header_style='bold')
  for heading in ('family', 'installed', 'environments'):
    table.add_column(heading, overflow='fold')
  for family in families:
    if family.installed():
      table.add_row(family.name, Text(family.version(), 'green'), _few(family))
    else:
      table.add_row(family.name, Text('no', 'red'), Text(family.way_out()))
  return Group(table, Text('\nAll of a family, or what a word is found in: ' + USAGE))


def _few(family: Family) -> Text:
  names = family.names()
  # From the whole alphabet, not its beginning.
  some = names[:: max(1, len(names) // _SHOWN)][:_SHOWN]
  others = '' if len(names) == len(some) else ', ...'
  return Text(f'{len(names)}: {", ".join(some)}{others}')
