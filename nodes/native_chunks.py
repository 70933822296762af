"""Files of a checkpoint: written once, known by their checksums, shared by several."""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from callsheet.errors import CallCancelled
from callsheet.nodes.native_storage import Storage

_PIECE_BYTES = 4 * 2**20


class Described(TypedDict):
  """What is known of a file: its size, and the crc32 of all of it."""

  bytes: int
  checksum: int


Identity = tuple[int, int, int]


def write_file(
  path: Path, parts: Iterable[Any], stopping: threading.Event
) -> Described:
  """Writes buffers, one behind the other; `sync` is what a crash can't undo.

  Raises:
    OSError: the disk is full, for example.
    CallCancelled: the replay stops.
  """
  checksum = size = 0
  with open(path, 'wb', buffering=0) as file:
    for part in parts:
      for piece in _pieces(part):
        check_running(stopping)
        checksum = zlib.crc32(piece, checksum)
        size += piece.nbytes
        while piece:
          piece = piece[file.write(piece) :]
  return {'bytes': size, 'checksum': checksum}


def share_file(
  old: Path, new: Path, described: Described, stopping: threading.Event
) -> None:
  """Gives a file a second name; where that can't be, it is copied.

  Raises:
    OSError: it can't be written, or is not what it was any more.
  """
  try:
    os.link(old, new)
    return
  except OSError as error:
    if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EIO):
      raise
  with open(old, 'rb') as file:
    pieces = iter(lambda: file.read(_PIECE_BYTES), b'')
    if write_file(new, pieces, stopping) != described:
      raise OSError(errno.EIO, f'{old.name} is not what it was', str(old))
  sync(new)


def sync(path: Path) -> None:
  """A file, or what was made or renamed in a directory, outlasts a crash."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def check_file(
  path: Path, described: Described, stopping: threading.Event | None = None
) -> None:
  """Reads a file again.

  Raises:
    ValueError: it is not as it was written.
    OSError: it can't be read.
  """
  status = path.stat()
  if status.st_size != described['bytes']:
    raise ValueError(
      f'{path.name} has {status.st_size} bytes, not {described["bytes"]}'
    )
  checksum = 0
  with open(path, 'rb') as file:
    while data := file.read(_PIECE_BYTES):
      check_running(stopping)
      checksum = zlib.crc32(data, checksum)
  if checksum != described['checksum']:
    shared = ', and so are the checkpoints that share it' if status.st_nlink > 1 else ''
    raise ValueError(f'the checksum of {path.name} is wrong{shared}')


def identity(path: Path) -> Identity:
  """Which file it is, and as of when; another one once somebody wrote to it."""
  status = path.stat()
  return status.st_ino, status.st_mtime_ns, status.st_size


def check_running(stopping: threading.Event | None) -> None:
  """A CallCancelled if the replay stops."""
  if stopping is not None and stopping.is_set():
    raise CallCancelled('replay is stopping')


def chunk_name(table: int, storage: str, chunk: int) -> str:
  """The file of a chunk: the table's number, its storage's name, the chunk's number."""
  return f'{table}.{storage}.{chunk:06d}'


def describe_storage(storage: Storage) -> dict[str, Any]:
  """How its chunks are laid out."""
  dtypes = {name: str(_row(array)) for name, array in storage.arrays.items()}
  return {'chunk': storage.chunk, 'arrays': dtypes}


def read_storage(
  checkpoint: Path, table: int, name: str, storage: Storage, files: Mapping[str, Any]
) -> None:
  """Fills a storage, of whose layout it is known that it is the same."""
  end = 0
  size = sum(_row(array).itemsize for array in storage.arrays.values())
  for number in range(storage.chunks):
    file_name = chunk_name(table, name, number)
    if file_name not in files:
      break
    start = number * storage.chunk
    end = start + files[file_name]['bytes'] // size
    with open(checkpoint / file_name, 'rb') as file:
      for array in storage.arrays.values():
        for piece in _pieces(array[start:end]):
          file.readinto(piece)
  storage.restored(end)


def _row(array: NDArray[np.generic]) -> np.dtype[np.generic]:
  return np.dtype((array.dtype, array.shape[1:]))


def _pieces(part: Any) -> Iterator[memoryview]:
  """The bytes of an array or a buffer, a few megabytes at a time."""
  if isinstance(part, np.ndarray):
    if not part.size:
      return
    part = part.reshape(-1).view(np.uint8)
  whole = memoryview(part).cast('B')
  for start in range(0, len(whole), _PIECE_BYTES):
    yield whole[start : start + _PIECE_BYTES]
