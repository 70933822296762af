"""`callsheet graph AGENT`: the program that a run would launch, drawn before it is."""

from __future__ import annotations

import os
import shutil
import subprocess

from absl import flags

from callsheet.agents import registry
from callsheet.commands import help, launch_program
from callsheet.commands.flags import define_config, one_argument, parse
from callsheet.commands.preparing import prepare
from callsheet.commands.run_flags import run_flags
from callsheet.errors import UsageError
from callsheet.programs.describe import describe
from callsheet.programs.plan import Plan

USAGE = 'callsheet graph dqn --env=CartPole-v1 --num_actors=8 --mermaid'
_ABOUT = """

Shows the nodes of a program, which calls which, and what each needs, without starting
any: as text, or in one of the languages above. Instead of an agent, with the flags of
`callsheet run`, it takes a program of one's own: FILE.py:PROGRAM. --svg needs
Graphviz's `dot`; what --mermaid prints is drawn by GitHub and by editors."""
_FORMATS = ('dot', 'mermaid', 'json')
_OWN = (*_FORMATS, 'svg')


def graph(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = run_flags()
  for name, what in (
    ('dot', "In Graphviz's language."),
    ('mermaid', 'As a Mermaid flowchart.'),
    ('json', 'For programs: see `callsheet.programs.describe.as_json`.'),
  ):
    flags.DEFINE_bool(name, False, what, flag_values=values)
  flags.DEFINE_string('svg', None, 'Drawn into this file.', flag_values=values)
  known = [argument for argument in argv if argument in registry.names()]
  if known:
    define_config(values, registry.find(known[0]).config)
  arguments = parse(values, argv, known_only=not known)
  if values.help:
    print(help.page(values, USAGE, {'how it is shown': _OWN}) + _ABOUT)
    return 0
  chosen = [name for name in _OWN if values[name].present and values[name].value]
  if len(chosen) > 1:
    raise UsageError(
      f'expected one of {", ".join(f"--{name}" for name in _OWN)}, got '
      f'{" and ".join(f"--{name}" for name in chosen)}'
    )
  if values.svg is not None:
    _find_dot()
  wanted = one_argument(arguments, 'agent or FILE.py:PROGRAM', USAGE)
  if ':' in wanted:
    plan = launch_program.find(wanted).plan()
  else:
    plan = prepare(wanted, values).program.plan()
  if values.svg is not None:
    draw(plan, values.svg)
  else:
    print(describe(plan, chosen[0] if chosen else 'text'), end='')
  return 0


def draw(plan: Plan, path: str) -> None:
  """Draws a plan into an SVG file.

  Raises:
    UsageError: Graphviz isn't there, or the file can't be written.
  """
  drawn = subprocess.run(
    [_find_dot(), '-Tsvg'],
    input=describe(plan, 'dot'),
    capture_output=True,
    text=True,
  )
  if drawn.returncode:
    raise UsageError(f'Graphviz could not draw it: {drawn.stderr.strip()}')
  try:
    with open(path, 'w') as file:
      file.write(drawn.stdout)
  except OSError as error:
    raise UsageError(
      f'{os.path.abspath(path)} can not be written ({error.strerror}); name another '
      'file: --svg=FILE'
    ) from None


def _find_dot() -> str:
  found = shutil.which('dot')
  if found is None:
    raise UsageError(
      "--svg needs Graphviz's `dot`, which is not there: apt-get install graphviz, or "
      'brew install graphviz; --mermaid and --dot need nothing'
    )
  return found
