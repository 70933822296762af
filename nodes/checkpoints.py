"""Pytrees of arrays as folders on disk, by orbax."""

from __future__ import annotations

import os
import shutil
from typing import Any

from callsheet.errors import UsageError


def save(directory: str, tree: Any) -> None:
  """Writes `tree` to `directory`; what was there before stays whole until then."""
  # orbax takes a second to import: processes that save nothing don't pay it.
  import orbax.checkpoint as ocp

  directory = os.path.abspath(directory)
  aside, old = f'{directory}.new', f'{directory}.old'
  shutil.rmtree(aside, ignore_errors=True)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(aside, tree)
  shutil.rmtree(old, ignore_errors=True)
  if os.path.exists(directory):
    os.rename(directory, old)
  os.rename(aside, directory)
  shutil.rmtree(old, ignore_errors=True)


def restore(directory: str, like: Any) -> Any:
  """Reads what `save` wrote.

  Args:
    directory: as given to `save`.
    like: a pytree of the same structure, shapes and dtypes.

  Raises:
    UsageError: there is no checkpoint, or one of another structure.
  """
  import orbax.checkpoint as ocp

  directory = os.path.abspath(directory)
  if not os.path.isdir(directory):
    raise UsageError(f'there is no checkpoint at {directory}')
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return checkpointer.restore(directory, like)
  except (ValueError, KeyError) as error:
    raise UsageError(
      f'the checkpoint at {directory} is not of this agent and configuration: {error}'
    ) from error
