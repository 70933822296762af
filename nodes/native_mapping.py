"""Arrays that live in files: larger than memory, and gone with the process.

The files have no names, so that nothing is left of them when they are let go, by a
killed process too, and two replays may share a directory. Their space is taken at once:
a disk that is full says so when they are made, not when they are written.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callsheet.errors import UsageError
from callsheet.nodes.replay_checks import shown_bytes


def mapped(
  directory: Path, count: int, dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
  """An array `[count]` of `dtype` (which may have a shape) in a file of its own.

  Raises:
    UsageError: the file can't be made, or the disk doesn't have the space.
  """
  size = count * dtype.itemsize
  if not size:
    return np.empty((count, *dtype.shape), dtype.base)
  try:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
      os.posix_fallocate(file.fileno(), 0, size)
      buffer = mmap.mmap(file.fileno(), size)
  except OSError as error:
    raise UsageError(
      f'{shown_bytes(size)} of columns can not be kept in {directory} '
      f'({error.strerror or error}); name another columns_directory, or a smaller '
      f'max_size'
    ) from error
  return np.frombuffer(buffer, dtype.base).reshape(count, *dtype.shape)


def free_bytes(directory: Path) -> tuple[int, int]:
  """Bytes free in a directory, which need not exist yet, and the number of its disk.

  Raises:
    UsageError: nothing can be made there.
  """
  there = directory.absolute()
  while not there.exists():
    there = there.parent
  if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
    raise UsageError(
      f'no files can be made in {directory}; name another columns_directory'
    )
  return shutil.disk_usage(there).free, there.stat().st_dev
