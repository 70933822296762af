"""Checkpoints of the native replay: columns in files of chunks, and a manifest.

`manifest.json` has the tables as they were declared, their counters, and the checksum
(crc32) of every file and of itself. A chunk that did not change since the checkpoint
before is the same file under two names. A checkpoint that is torn or corrupted is
passed over for the one before, with a warning that says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes import replay_folders
from callsheet.nodes.native_chunks import (
  Described,
  Identity,
  check_file,
  check_running,
  chunk_name,
  describe_storage,
  identity,
  read_storage,
  share_file,
  sync,
  write_file,
)
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.native_snapshot import Snapshot

_MANIFEST = 'manifest.json'
_FORMAT = 2
# Damage of a file that is shared is that of all who share it. Whether somebody wrote to
# it is looked at each time; once in so many checkpoints it is read again, for what the
# disk itself has lost.
_READ_AGAIN = 8


class Found(NamedTuple):
  """A whole checkpoint.

  Attributes:
    place: its folder.
    manifest: what it says of itself.
    newest: no damaged one was passed over.
  """

  place: Path
  manifest: dict[str, Any]
  newest: bool


class Checkpoints:
  """Those of one replay, in a folder of its own."""

  def __init__(self, directory: Path, keep: int) -> None:
    """Looks at nothing yet; `keep` of the newest stay, at least 1."""
    self._directory, self._keep = directory, keep
    # The last one of this replay, and its files.
    self._last: Path | None = None
    self._files: dict[str, Described] = {}
    self._identities: dict[str, Identity] = {}
    self._count = 0

  def write(
    self, tables: Mapping[str, GuardedTable], stopping: threading.Event
  ) -> Path:
    """Writes down the tables as they are now.

    Raises:
      UsageError: it can't be written, the disk is full; those that are there stay.
      CallCancelled: the replay stops.
    """
    check_running(stopping)
    aside: Path | None = None
    completed = False
    try:
      aside = replay_folders.make_aside(self._directory)
      shared = self._shareable(stopping)
      snapshots = _begin(tables, shared)
      files = self._write_tables(aside, tables, snapshots, shared, stopping)
      manifest = _manifest(tables, snapshots, files)
      written = {'checksum': _checksum(manifest), 'manifest': manifest}
      write_file(aside / _MANIFEST, [json.dumps(written).encode()], stopping)
      sync(aside / _MANIFEST)
      sync(aside)
      place = replay_folders.publish(aside, self._directory, self._keep)
      sync(self._directory)
      self._remember(place, files)
      self._count += 1
      completed = True
      return place
    except OSError as error:
      raise UsageError(
        f'the replay can not be written to {self._directory} '
        f'({error.strerror or error}); the checkpoints there and the replay itself are '
        f'as they were'
      ) from error
    finally:
      for guarded in tables.values():
        with guarded.lock:
          guarded.table.end_snapshot(completed)
      if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)

  def newest_whole(self, tables: Mapping[str, Table]) -> Found | None:
    """The same as `newest`, if it was written by these tables.

    Raises:
      UsageError: it was written by other tables, or each one there is damaged.
    """
    found = self.newest()
    if found is not None:
      replay_folders.check_tables(found.place, found.manifest['tables'], tables)
    return found

  def newest(self) -> Found | None:
    """The latest checkpoint that is as it was written; None if there is none at all.

    Raises:
      UsageError: each one there is damaged.
    """
    present = replay_folders.numbered(self._directory)
    for checkpoint in reversed(present):
      try:
        manifest = _read(checkpoint)
      except (OSError, ValueError, KeyError, TypeError) as error:
        logging.getLogger(__name__).warning(
          'checkpoint %s is damaged (%s); going back to the one before',
          checkpoint,
          error,
        )
        continue
      return Found(checkpoint, manifest, checkpoint == present[-1])
    if present:
      raise UsageError(
        f'each of the {len(present)} checkpoints in {self._directory} is damaged or '
        f'not of the native replay; start without restore'
      )
    return None

  def restore(self, found: Found, tables: Mapping[str, GuardedTable]) -> None:
    """Fills empty tables; the next checkpoint shares what stays as it is.

    After damage was seen it shares nothing: there may be more of it on that disk.

    Raises:
      UsageError: another version of Callsheet laid out its columns.
    """
    place, manifest, _ = found
    for index, (name, guarded) in enumerate(tables.items()):
      saved, table = manifest['states'][name], guarded.table
      if saved['storages'] != _layout(guarded):
        raise UsageError(
          f'{place}: table {name!r} was laid out by another version of Callsheet; '
          f'restore with that one, or start without restore'
        )
      arrays = {
        array: np.fromfile(place / f'{index}.{array}', dtype)
        for array, dtype in saved['arrays'].items()
      }
      table.restore(arrays, saved['counters'])
      for storage_name, storage in table.storages.items():
        read_storage(place, index, storage_name, storage, manifest['files'])
      table.end_restore()
    if found.newest:
      self._remember(place, manifest['files'])

  def _remember(self, place: Path, files: dict[str, Described]) -> None:
    self._last, self._files = place, files
    self._identities = {name: identity(place / name) for name in files}

  def _shareable(self, stopping: threading.Event) -> dict[str, Described]:
    """Files of the last checkpoint that are still as they were, as far as is seen."""
    sound: dict[str, Described] = {}
    if self._last is None:
      return sound
    for number, (name, described) in enumerate(self._files.items()):
      path = self._last / name
      try:
        if identity(path) != self._identities[name]:
          raise ValueError(f'{name} was written to')
        if (number + self._count) % _READ_AGAIN == 0:
          check_file(path, described, stopping)
        sound[name] = described
      except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning(
          'checkpoint %s is damaged (%s); what it held is written anew',
          self._last,
          error,
        )
    return sound

  def _write_tables(
    self,
    aside: Path,
    tables: Mapping[str, GuardedTable],
    snapshots: Mapping[str, Snapshot],
    shared: Mapping[str, Described],
    stopping: threading.Event,
  ) -> dict[str, Described]:
    files: dict[str, Described] = {}
    synced = []
    # While the disk takes one file in, the next one is being made.
    with ThreadPoolExecutor(1, 'replay-checkpoint') as disk:
      for index, (name, guarded) in enumerate(tables.items()):
        for file, rows in _rows(index, guarded, snapshots[name]):
          files[file] = write_file(aside / file, rows, stopping)
          synced.append(disk.submit(sync, aside / file))
        for storage, chunks in snapshots[name].chunks.items():
          for number in chunks.same:
            check_running(stopping)
            file = chunk_name(index, storage, number)
            self._share(aside, file, shared[file], stopping)
            files[file] = shared[file]
      for each in synced:
        each.result()
    return files

  def _share(
    self, aside: Path, file: str, described: Described, stopping: threading.Event
  ) -> None:
    if self._last is None:
      raise AssertionError('without a checkpoint before there is nothing to share')
    share_file(self._last / file, aside / file, described, stopping)


def _begin(
  tables: Mapping[str, GuardedTable], shared: Mapping[str, Described]
) -> dict[str, Snapshot]:
  """All tables as they are at one moment; what can't be shared counts as changed."""
  absent = [
    (storage, [chunk_name(i, name, n) not in shared for n in range(storage.chunks)])
    for i, guarded in enumerate(tables.values())
    for name, storage in guarded.table.storages.items()
  ]
  with contextlib.ExitStack() as locks:
    for guarded in tables.values():
      locks.enter_context(guarded.lock)
    for storage, chunks in absent:
      storage.changed |= chunks
    return {name: guarded.table.begin_snapshot() for name, guarded in tables.items()}


def _rows(
  index: int, guarded: GuardedTable, snapshot: Snapshot
) -> Iterator[tuple[str, list[NDArray[np.generic]]]]:
  """What is to be written of one table: files, and what each holds."""
  for array, values in snapshot.arrays.items():
    yield f'{index}.{array}', [values]
  for name, chunks in snapshot.chunks.items():
    storage = guarded.table.storages[name]
    for number in chunks.changed:
      yield chunk_name(index, name, number), storage.take(number, guarded.lock)


def _manifest(
  tables: Mapping[str, GuardedTable],
  snapshots: Mapping[str, Snapshot],
  files: Mapping[str, Described],
) -> dict[str, Any]:
  return {
    'format': _FORMAT,
    'tables': replay_folders.describe(
      {name: guarded.table.declared for name, guarded in tables.items()}
    ),
    'states': {
      name: {
        'counters': snapshot.counters,
        'arrays': {array: v.dtype.str for array, v in snapshot.arrays.items()},
        'storages': _layout(tables[name]),
      }
      for name, snapshot in snapshots.items()
    },
    'files': files,
  }


def _layout(guarded: GuardedTable) -> dict[str, Any]:
  storages = guarded.table.storages
  return {name: describe_storage(storage) for name, storage in storages.items()}


def _read(checkpoint: Path) -> dict[str, Any]:
  """The manifest; OSError or ValueError if anything is not as it was written."""
  written = json.loads((checkpoint / _MANIFEST).read_text())
  manifest: dict[str, Any] = written['manifest']
  if written['checksum'] != _checksum(manifest):
    raise ValueError(f'the checksum of {_MANIFEST} is wrong')
  if manifest.get('format') != _FORMAT:
    raise ValueError('it was written by another version of Callsheet')
  for name, described in manifest['files'].items():
    check_file(checkpoint / name, described)
  return manifest


def _checksum(manifest: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
