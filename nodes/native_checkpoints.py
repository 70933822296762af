"""Checkpoints of the native replay: a file for each column, and a manifest.

`manifest.json` has the tables as they were declared, their counters, and the checksum
(crc32) of every file and of itself. A checkpoint that is torn or corrupted is passed
over for the one before, with a warning that says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes import replay_folders
from callsheet.nodes.native_columns import row_bytes
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.native_snapshot import Snapshot
from callsheet.nodes.native_steps import StepRing
from callsheet.nodes.native_table import NativeTable

_MANIFEST = 'manifest.json'
_PIECE_BYTES = 4 * 2**20

_Part = tuple[threading.Lock, NativeTable | StepRing]


def write(
  directory: Path,
  tables: Mapping[str, GuardedTable],
  keep: int,
  stopping: threading.Event,
) -> Path:
  """Writes down the tables as they are now; `keep` of the newest checkpoints stay.

  Raises:
    UsageError: it can't be written, the disk is full; those that are there stay.
    CallCancelled: the replay stops.
  """
  aside: Path | None = None
  try:
    aside = replay_folders.make_aside(directory)
    manifest = _write_tables(aside, tables, stopping)
    with open(aside / _MANIFEST, 'w') as file:
      json.dump({'checksum': _checksum(manifest), 'manifest': manifest}, file)
      file.flush()
      os.fsync(file.fileno())
    place = replay_folders.publish(aside, directory, keep)
    folder = os.open(directory, os.O_RDONLY)
    try:
      os.fsync(folder)
    finally:
      os.close(folder)
    return place
  except OSError as error:
    raise UsageError(
      f'the replay can not be written to {directory} ({error.strerror or error}); the '
      f'checkpoints there and the replay itself are as they were'
    ) from error
  finally:
    if aside is not None:
      shutil.rmtree(aside, ignore_errors=True)


def newest_whole(directory: Path, tables: Mapping[str, Table]) -> Path | None:
  """The latest checkpoint that is as it was written; None if there is none at all.

  Raises:
    UsageError: it was written by other tables, or each one there is damaged.
  """
  present = replay_folders.numbered(directory)
  for checkpoint in reversed(present):
    try:
      manifest = _read(checkpoint)
    except (OSError, ValueError, KeyError, TypeError) as error:
      logging.getLogger(__name__).warning(
        'checkpoint %s is damaged (%s); going back to the one before', checkpoint, error
      )
      continue
    replay_folders.check_tables(checkpoint, manifest['tables'], tables)
    return checkpoint
  if present:
    raise UsageError(
      f'each of the {len(present)} checkpoints in {directory} is damaged or not of the '
      f'native replay; start without restore'
    )
  return None


def restore(checkpoint: Path, tables: Mapping[str, GuardedTable]) -> None:
  """Fills empty tables from a checkpoint that `newest_whole` gave."""
  manifest = json.loads((checkpoint / _MANIFEST).read_text())['manifest']
  for index, (name, (_, part)) in enumerate(_parts(tables).items()):
    saved = manifest['states'][name]
    arrays: dict[str, NDArray[np.generic]] = {
      array: np.fromfile(checkpoint / f'{index}.{array}', dtype)
      for array, dtype in saved['arrays'].items()
    }
    slots = part.restore(arrays, saved['counters'])
    for number, (column, spec) in enumerate(part.columns.items()):
      width = int(np.prod(spec.shape))
      piece = max(1, _PIECE_BYTES // max(1, width * np.dtype(spec.dtype).itemsize))
      with open(checkpoint / f'{index}.column{number}', 'rb') as file:
        for start in range(0, len(slots), piece):
          some = slots[start : start + piece]
          rows = np.fromfile(file, spec.dtype, len(some) * width)
          part.restore_rows(column, some, rows.reshape(len(some), *spec.shape))
  for guarded in tables.values():
    guarded.table.end_restore()


def _parts(tables: Mapping[str, GuardedTable]) -> dict[str, _Part]:
  """What is written down of the tables: their items, and the steps that these show."""
  parts: dict[str, _Part] = {}
  for name, guarded in tables.items():
    parts[f'items:{name}'] = guarded.lock, guarded.table
    if guarded.table.ring is not None:
      parts[f'steps:{name}'] = guarded.lock, guarded.table.ring
  return parts


def _write_tables(
  aside: Path, tables: Mapping[str, GuardedTable], stopping: threading.Event
) -> dict[str, Any]:
  _check_running(stopping)
  with contextlib.ExitStack() as locks:
    for guarded in tables.values():
      locks.enter_context(guarded.lock)
    parts = _parts(tables)
    snapshots = [part.begin_snapshot() for _, part in parts.values()]
  try:
    states = {}
    for index, (name, (lock, part)) in enumerate(parts.items()):
      snapshot = snapshots[index]
      for array, values in snapshot.arrays.items():
        values.tofile(aside / f'{index}.{array}')
      _write_columns(aside, index, lock, part, snapshot, stopping)
      states[name] = {
        'counters': snapshot.counters,
        'arrays': {array: v.dtype.str for array, v in snapshot.arrays.items()},
      }
  finally:
    for lock, part in parts.values():
      with lock:
        part.end_snapshot()
  return {
    'tables': replay_folders.describe(
      {name: guarded.table.declared for name, guarded in tables.items()}
    ),
    'states': states,
    'files': {
      path.name: _describe_file(path, stopping) for path in sorted(aside.iterdir())
    },
  }


def _write_columns(
  aside: Path,
  index: int,
  lock: threading.Lock,
  table: NativeTable | StepRing,
  snapshot: Snapshot,
  stopping: threading.Event,
) -> None:
  names = list(table.columns)
  piece = max(1, _PIECE_BYTES // row_bytes(table.columns))
  with contextlib.ExitStack() as opened:
    files: dict[str, BinaryIO] = {
      name: opened.enter_context(open(aside / f'{index}.column{number}', 'wb'))
      for number, name in enumerate(names)
    }
    for start in range(0, len(snapshot.slots), piece):
      _check_running(stopping)
      part = snapshot.slots[start : start + piece]
      with lock:
        rows = table.rows(part)
        snapshot.taken(part)
      for name, file in files.items():
        file.write(rows[name].data if rows[name].size else b'')
    # What writers overwrote before its turn came.
    for indices, kept in snapshot.kept:
      for name, file in files.items():
        width = kept[name][0].nbytes
        for at, row in zip(indices.tolist(), kept[name], strict=True):
          file.seek(at * width)
          file.write(row.tobytes())


def _read(checkpoint: Path) -> dict[str, Any]:
  """The manifest; OSError or ValueError if anything is not as it was written."""
  written = json.loads((checkpoint / _MANIFEST).read_text())
  manifest: dict[str, Any] = written['manifest']
  if written['checksum'] != _checksum(manifest):
    raise ValueError(f'the checksum of {_MANIFEST} is wrong')
  for name, described in manifest['files'].items():
    if (size := (checkpoint / name).stat().st_size) != described['bytes']:
      raise ValueError(f'{name} has {size} bytes, not {described["bytes"]}')
    if _describe_file(checkpoint / name) != described:
      raise ValueError(f'the checksum of {name} is wrong')
  return manifest


def _describe_file(
  path: Path, stopping: threading.Event | None = None
) -> dict[str, int]:
  checksum = size = 0
  with open(path, 'rb') as file:
    while data := file.read(_PIECE_BYTES):
      _check_running(stopping)
      checksum, size = zlib.crc32(data, checksum), size + len(data)
    if stopping is not None:  # It is being written: on the disk before the rename is.
      os.fsync(file.fileno())
  return {'bytes': size, 'checksum': checksum}


def _check_running(stopping: threading.Event | None) -> None:
  if stopping is not None and stopping.is_set():
    raise CallCancelled('replay is stopping')


def _checksum(manifest: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
