"""`callsheet launch FILE.py:PROGRAM`: launches a program graph of one's own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from absl import flags

from callsheet.commands import backends, help, seeing
from callsheet.commands.flags import new_flags, one_argument, parse
from callsheet.errors import UsageError
from callsheet.launch import Backend, start
from callsheet.launch.launching import terminated_like_interrupted
from callsheet.launch.observe.gathering import Observing
from callsheet.programs.plan import Plan
from callsheet.programs.program import Program

USAGE = 'callsheet launch my_program.py:program --backend=processes'


def launch_program(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  backends.define(values)
  seeing.define(values)
  arguments = parse(values, argv)
  if values.help:
    launching = [*backends.OWN, *seeing.OWN]
    sections = {'launching': launching, **backends.sections(values)}
    print(help.page(values, USAGE, sections))
    return 0
  backend = backends.read(values)
  plan = find(one_argument(arguments, 'program', USAGE)).plan()
  if values.dry_run:
    print(backends.dry_run(backend, plan))
  elif values.detach:
    print(backends.submit(backend, plan))
  else:
    _launch(values, plan, backend)
  return 0


def _launch(values: flags.FlagValues, plan: Plan, backend: Backend) -> None:
  def say(line: str) -> None:
    print(line, file=sys.stderr)

  with (
    terminated_like_interrupted(),
    Observing(backend=backend.name) as observing,
    start(plan, backend) as running,
    seeing.seen(values, running, observing, say),
  ):
    running.wait()
  if held := observing.bottleneck():
    say(held)


def find(where: str) -> Program:
  """The program at 'file.py:name' or 'package.module:name'.

  What is there is a Program, or takes no arguments and returns one.

  Raises:
    UsageError: there is no such thing.
  """
  place, _, name = where.partition(':')
  if not place or not name.isidentifier():
    raise UsageError(f'{where!r} names no program; right is: {USAGE}')
  module = _module(place)
  if not hasattr(module, name):
    raise UsageError(f'{place} has no {name!r}; right is: {USAGE}')
  found = getattr(module, name)
  program = found() if callable(found) and not isinstance(found, Program) else found
  if not isinstance(program, Program):
    raise UsageError(
      f'{where} is a {type(program).__name__}, expected a Program or a function that '
      'returns one'
    )
  return program


def _module(place: str) -> ModuleType:
  if not place.endswith('.py'):
    sys.path.insert(0, os.getcwd())
    try:
      return importlib.import_module(place)
    except ModuleNotFoundError as error:
      if error.name is None or not place.startswith(error.name):
        raise
      raise UsageError(f'no module {place!r}; right is: {USAGE}') from None
  if not os.path.exists(place):
    raise UsageError(f'there is no file {place!r}; right is: {USAGE}')
  # Nodes on other hosts import it by its name.
  folder, file = os.path.split(os.path.abspath(place))
  sys.path.insert(0, folder)
  return importlib.import_module(file.removesuffix('.py'))
