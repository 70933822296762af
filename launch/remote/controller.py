"""A launcher that runs as a job itself: `python -m callsheet.launch.remote.controller`.

What `submit` has put into a folder, it launches there: so a program outlives the
terminal that it was launched from.
"""

from __future__ import annotations

import json
import os
import pickle
import sys

import cloudpickle

from callsheet.errors import CallsheetError
from callsheet.launch.crew import Backend
from callsheet.launch.remote.ticket import carried_path
from callsheet.launch.remote.versions import difference, versions
from callsheet.programs.plan import Plan

FINISHED, FAILED, INTERRUPTED = 0, 1, 130
_PATH, _PROGRAM, _VERSIONS = 'path.json', 'program.pkl', 'versions.json'


def files(plan: Plan, backend: Backend) -> dict[str, bytes]:
  """What a controller has to be given, by file name; the plan may hold secrets."""
  return {
    _PATH: json.dumps(carried_path()).encode(),
    _VERSIONS: json.dumps(versions()).encode(),
    _PROGRAM: cloudpickle.dumps((plan, backend)),
  }


def submit(folder: str, plan: Plan, backend: Backend) -> None:
  """Writes the files that a controller needs; nobody else can read them.

  Args:
    folder: made if need be, with mode 700.
    plan: what to launch.
    backend: how, once it is there.
  """
  os.makedirs(folder, mode=0o700, exist_ok=True)
  for name, content in files(plan, backend).items():
    file = os.open(
      os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
    )
    with os.fdopen(file, 'wb') as stream:
      stream.write(content)


def main() -> None:
  """Launches what the folder holds; exits with 0, 1 if a node failed, or 130."""
  folder = sys.argv[1]
  with open(os.path.join(folder, _PATH)) as stream:
    path = json.load(stream)
  sys.path += [entry for entry in path if entry not in sys.path]
  with open(os.path.join(folder, _VERSIONS)) as stream:
    unlike = difference(json.load(stream), versions(), than='the submitting machine')
  if unlike:
    print(f'callsheet: the launcher has {unlike}: make them alike', file=sys.stderr)
    sys.exit(FAILED)
  with open(os.path.join(folder, _PROGRAM), 'rb') as stream:
    try:
      plan, backend = pickle.load(stream)
    except (ImportError, AttributeError) as error:
      print(
        f'callsheet: the program can not be read here: {error}; what its nodes are '
        'made of must be installed where the launcher and its workers run',
        file=sys.stderr,
      )
      sys.exit(FAILED)
  from callsheet.launch.launching import launch

  try:
    launch(plan, backend)
  except CallsheetError as error:
    print(f'callsheet: {error}', file=sys.stderr)
    sys.exit(FAILED)
  except KeyboardInterrupt:
    sys.exit(INTERRUPTED)
  sys.exit(FINISHED)


if __name__ == '__main__':
  main()
