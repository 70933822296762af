"""The folder of a run: config, metrics, logs, curve and checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from callsheet.errors import UsageError


def make(path: str) -> str:
  """Makes the folder of a new run; returns its absolute path.

  Raises:
    UsageError: it exists, or it can't be made.
  """
  try:
    os.makedirs(path)
  except FileExistsError:
    raise UsageError(
      f'the run folder {path} exists; take another --name, or remove it first'
    ) from None
  except OSError as error:
    raise UsageError(
      f'the run folder {path} can not be made ({error.strerror}); name a place that '
      'can be written: --runs_directory=DIRECTORY'
    ) from None
  return os.path.abspath(path)


def write_config(path: str, config: Mapping[str, Any]) -> None:
  """Writes `config.json`."""
  with open(os.path.join(path, 'config.json'), 'w') as file:
    json.dump(config, file, indent=2)
    file.write('\n')


def read_config(path: str) -> dict[str, Any]:
  """Reads `config.json`.

  Raises:
    UsageError: this is no run's folder.
  """
  try:
    with open(os.path.join(path, 'config.json')) as file:
      config: dict[str, Any] = json.load(file)
      return config
  except (OSError, ValueError) as error:
    raise UsageError(
      f'{path} is not the folder of a run: its config.json can not be read ({error}); '
      'right is: callsheet eval runs/NAME'
    ) from None


def read_metrics(path: str) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`, oldest first; none if the run has written none."""
  try:
    with open(os.path.join(path, 'metrics.jsonl')) as file:
      return [json.loads(line) for line in file]
  except FileNotFoundError:
    return []
