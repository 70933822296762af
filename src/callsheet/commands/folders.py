"""The folder of a run: config, metrics, logs, curve and checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from callsheet.errors import UsageError


class Folder(NamedTuple):
  """A folder that was made.

  Attributes:
    path: absolute.
    parents: those above it that were made for it, the innermost first.
  """

  path: str
  parents: tuple[str, ...]


def make(path: str, config: Mapping[str, Any]) -> Folder:
  """Makes the folder of a new run, with its `config.json`.

  Raises:
    UsageError: it exists, or it can't be made.
  """
  path = os.path.abspath(path)
  parents = []
  above = os.path.dirname(path)
  while not os.path.lexists(above):
    parents.append(above)
    above = os.path.dirname(above)
  folder = Folder(path, tuple(parents))
  try:
    os.makedirs(path)
  except FileExistsError:
    raise UsageError(
      f'the run folder {path} exists; take another --name, or remove it first'
    ) from None
  except OSError as error:
    _remove_if_empty(folder.parents)
    raise _unwritable(path, error) from None
  try:
    write_config(path, config)
  except OSError as error:
    discard(folder)
    raise _unwritable(path, error) from None
  return folder


def write_config(path: str, config: Mapping[str, Any]) -> None:
  """Writes `config.json`; there is a whole one at every moment.

  Raises:
    OSError: it can't be written.
  """
  place = os.path.join(path, 'config.json')
  with open(f'{place}.new', 'w') as file:
    json.dump(config, file, indent=2)
    file.write('\n')
  os.rename(f'{place}.new', place)


def _unwritable(path: str, error: OSError) -> UsageError:
  return UsageError(
    f'the run folder {path} can not be made ({error.strerror}); name a place that can '
    'be written: --runs_directory=DIRECTORY'
  )


def discard(folder: Folder) -> None:
  """Removes what `make` made; the folders above only where nothing else is in them."""
  shutil.rmtree(folder.path, ignore_errors=True)
  _remove_if_empty(folder.parents)


def _remove_if_empty(innermost_first: Sequence[str]) -> None:
  for path in innermost_first:
    with contextlib.suppress(OSError):
      os.rmdir(path)


def read_config(path: str) -> dict[str, Any]:
  """Reads `config.json`.

  Raises:
    UsageError: this is no run's folder.
  """
  try:
    with open(os.path.join(path, 'config.json')) as file:
      config = json.load(file)
  except (OSError, ValueError) as error:
    why = getattr(error, 'strerror', None) or error
    raise UsageError(
      f'{path} is not the folder of a run: its config.json can not be read ({why}); '
      'right is: callsheet eval runs/NAME'
    ) from None
  if not isinstance(config, dict) or not {'agent', 'agent_config', 'flags'} <= {
    *config
  }:
    raise UsageError(
      f'{path} is not the folder of a run: its config.json is none of `callsheet run`; '
      'right is: callsheet eval runs/NAME'
    )
  return config


def read_metrics(path: str) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`, oldest first; none if the run has written none."""
  rows = []
  with (
    contextlib.suppress(FileNotFoundError),
    open(os.path.join(path, 'metrics.jsonl')) as file,
  ):
    for line in file:
      try:
        rows.append(json.loads(line))
      except ValueError:  # Cut off where the recorder was killed.
        break
  return rows
