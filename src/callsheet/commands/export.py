"""`callsheet export RUN_FOLDER [FOLDER]`: the best policy, for jax alone."""

from __future__ import annotations

import os
from contextlib import closing

from callsheet.commands import environment_options, folders, help, saved_runs
from callsheet.commands.evaluate import policy
from callsheet.commands.flags import new_flags, one_argument, parse
from callsheet.nodes import exported
from callsheet.nodes.named_environments import make_named

USAGE = 'callsheet export runs/NAME [FOLDER]'


def export(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = new_flags()
  arguments = parse(values, argv)
  if values.help:
    print(help.page(values, USAGE, {}))
    return 0
  folder = one_argument(arguments[:1], 'folder of a run', USAGE)
  others = arguments[1:] or [os.path.join(folder, 'exported')]
  place = one_argument(others, 'folder to make', USAGE)
  saved = folders.read_config(folder)
  about = saved_runs.about(saved)
  options = environment_options.read(about['env_options'])
  make_environment = make_named(about['env'], evaluation=True, **options)
  with closing(make_environment(1, 0)) as environment:
    agent, params = policy(folder, saved, environment.spec())
  exported.write(place, agent, params, about)
  print(f'{about["agent"]} on {about["env"]}, for jax alone: {place}')
  print(f'  play it: callsheet eval {place}; load it: see {place}/README.md')
  return 0
