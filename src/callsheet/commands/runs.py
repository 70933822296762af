"""The folders of runs, and how each run stands, by what it has left there."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

from callsheet.errors import UsageError
from callsheet.launch.observe.document import FILE, Status, read

State = Literal[
  'starting', 'running', 'stopping', 'finished', 'failed', 'interrupted', 'lost'
]

# Seconds: a launcher that is alive writes each second, on a busy machine less often.
_STALE = 10.0
# In which a run that was begun has told for the first time.
_BEGINS = 60.0
_LONGEST_ROW = 1 << 16


def find(text: str, runs_directory: str = 'runs', usage: str = '') -> str:
  """The folder of a run, by its path or its name.

  Args:
    text: 'runs/mine', or 'mine' alone.
    runs_directory: where runs are that are named alone.
    usage: a call that would be right, for the message.

  Raises:
    UsageError: there is none.
  """
  for path in (text, os.path.join(runs_directory, text)):
    if os.path.isfile(os.path.join(path, 'config.json')):
      return path
  known = names(runs_directory)
  near = difflib.get_close_matches(os.path.basename(text.rstrip('/')), known, n=1)
  hint = f'did you mean {near[0]!r}? ' if near else ''
  right = f'; right is: {usage}' if usage else ''
  raise UsageError(
    f'no run {text!r}: {hint}expected its folder or its name; `callsheet status` lists '
    f'those in {runs_directory}{right}'
  )


def names(runs_directory: str) -> list[str]:
  """The runs in a folder, those begun last at the end."""
  began: dict[str, float] = {}
  with contextlib.suppress(OSError):
    for name in os.listdir(runs_directory):
      with contextlib.suppress(OSError):
        config = os.path.join(runs_directory, name, 'config.json')
        began[name] = os.path.getmtime(config)
  return sorted(began, key=lambda name: (began[name], name))


def status(folder: str) -> Status | None:
  """The newest status of a run; None if it has written none yet."""
  if not os.path.exists(os.path.join(folder, FILE)):
    return None
  return read(folder)


def state(folder: str, newest: Status | None, now: float | None = None) -> State:
  """How a run stands: 'lost' if its launcher was killed, or is silent.

  Args:
    folder: of the run.
    newest: its status.
    now: in seconds since 1970; None for this moment.
  """
  now = time.time() if now is None else now
  if newest is None:
    try:
      age = now - os.path.getmtime(os.path.join(folder, 'config.json'))
    except OSError:
      return 'lost'
    return 'starting' if age < _BEGINS else 'lost'
  if newest.state in ('running', 'stopping') and now - newest.time > _STALE:
    return 'lost'
  found: State = newest.state  # type: ignore[assignment]
  return found


def is_over(folder: str) -> bool:
  """Whether nothing of the run is to come any more."""
  try:
    newest = status(folder)
  except UsageError:  # It was removed a moment ago.
    newest = None
  return state(folder, newest) not in ('starting', 'running', 'stopping')


def last_row(folder: str) -> Mapping[str, Any]:
  """The last whole row of its figures; empty before the first."""
  with contextlib.suppress(OSError):
    with open(os.path.join(folder, 'metrics.jsonl'), 'rb') as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(0, size - _LONGEST_ROW))
      lines = file.read().split(b'\n')
    # What is behind the last end of a line is half a row.
    for line in reversed(lines[:-1]):
      with contextlib.suppress(ValueError):
        row: Mapping[str, Any] = json.loads(line)
        return row
  return {}
