"""Snapshots of a whole run: a folder each, written aside, checksummed and renamed.

`<directory>/000007/` has `manifest.json`, the learner's state in `learner/`, what each
shard of the replay wrote in `replay/0/` and so on, and the run's `config.json`. Of one
that was published is promised:

  It is whole: the manifest has the sha256 of every file, and of itself.
  Its `learner_steps` are those of the learner's state that is in it.
  Its counts are at least those of everything that its replay holds.
  Who goes on from it counts on from the highest count that was ever answered, which is
  kept beside the snapshots (see `Counter`): what was lost counts as done.

Actors keep nothing that would have to be in it: statistics of observations are in the
learner's state, and their environments begin new episodes, with new carries.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from callsheet.errors import UsageError

# Where a run has them, within its folder.
IN_RUN = 'snapshots'
DAMAGED = '.damaged'

_MANIFEST = 'manifest.json'
_FORMAT = 1
_ASIDE = '.writing-'
_PIECE_BYTES = 4 * 2**20

Identity = tuple[int, int, int]


class Learnt(NamedTuple):
  """How far a learner's state is.

  Attributes:
    steps: updates that are in it.
    version: of its parameters: what `learner_steps` counted by then, those included
      that were lost with an earlier life of the learner.
  """

  steps: int
  version: int


class Snapshot(NamedTuple):
  """One that is as it was written.

  Attributes:
    place: its folder.
    manifest: `number`, `time` (seconds since 1970), `counts`, `seconds` of the run,
      `learner` (its `Learnt`, by name), `versions` of packages, and `files`.
    passed_over: newer ones that are damaged, and why.
  """

  place: Path
  manifest: dict[str, Any]
  passed_over: tuple[tuple[Path, str], ...]

  @property
  def learnt(self) -> Learnt:
    """How far its learner's state is."""
    return Learnt(**self.manifest['learner'])


def numbered(directory: Path) -> list[Path]:
  """The snapshots there, the newest last, whole or not."""
  with contextlib.suppress(OSError):
    return sorted(path for path in directory.iterdir() if path.name.isdigit())
  return []


def newest(directory: Path, part: str | None = None) -> Snapshot | None:
  """The latest one that is whole; None if there is none at all.

  Args:
    directory: where snapshots are.
    part: the one folder in it that matters, 'learner'; '' for the manifest alone, and
      None for everything.

  Raises:
    UsageError: each one there is damaged.
  """
  passed_over: list[tuple[Path, str]] = []
  for place in reversed(numbered(directory)):
    try:
      return Snapshot(place, read(place, part), tuple(passed_over))
    except (OSError, ValueError, KeyError, TypeError) as error:
      passed_over.append((place, str(error)))
  if passed_over:
    raise UsageError(
      f'each of the {len(passed_over)} snapshots in {directory} is damaged: '
      + '; '.join(f'{place.name}: {why}' for place, why in passed_over)
    )
  return None


def read(place: Path, part: str | None = None) -> dict[str, Any]:
  """The manifest of a snapshot, once all that it says of this part is true.

  Raises:
    OSError: something is not there or can't be read.
    ValueError: something is not as it was written.
  """
  written = json.loads((place / _MANIFEST).read_text())
  manifest: dict[str, Any] = written['manifest']
  if written['sha256'] != _of_manifest(manifest):
    raise ValueError(f'the checksum of {_MANIFEST} is wrong')
  if manifest['format'] != _FORMAT:
    raise ValueError('it was written by another version of Callsheet')
  for name, (size, checksum) in manifest['files'].items():
    if part is not None and not (part and name.startswith(f'{part}/')):
      continue
    path = place / name
    if path.stat().st_size != size:
      raise ValueError(f'{name} has {path.stat().st_size} bytes, not {size}')
    if _sha256(path) != checksum:
      raise ValueError(f'the checksum of {name} is wrong')
  return manifest


def make_aside(directory: Path) -> Path:
  """A fresh folder to write to; what a killed process left is removed.

  Raises:
    OSError: it can't be made.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for left in directory.glob(f'{_ASIDE}*'):
    shutil.rmtree(left, ignore_errors=True)
  return Path(tempfile.mkdtemp(prefix=_ASIDE, dir=directory))


def publish(
  aside: Path,
  directory: Path,
  about: dict[str, Any],
  known: MutableMapping[Identity, str],
) -> Path:
  """Makes a written folder the newest snapshot, which outlasts a crash from then on.

  Args:
    aside: the folder.
    directory: where snapshots are.
    about: what else its manifest says.
    known: checksums of files that were hashed before; becomes that of its own files.

  Raises:
    OSError: the disk is full, for example.
  """
  files, now = {}, {}
  for path in sorted(path for path in aside.rglob('*') if path.is_file()):
    status = path.stat()
    identity = status.st_ino, status.st_mtime_ns, status.st_size
    if (checksum := known.get(identity)) is None:
      _sync(path)
      checksum = _sha256(path)
    now[identity] = checksum
    files[str(path.relative_to(aside))] = status.st_size, checksum
  number = _next_number(directory)
  manifest = {
    'format': _FORMAT,
    'number': number,
    'time': time.time(),
    **about,
    'files': files,
  }
  manifest = json.loads(json.dumps(manifest))
  written = {'sha256': _of_manifest(manifest), 'manifest': manifest}
  (aside / _MANIFEST).write_text(json.dumps(written, indent=1))
  _sync(aside / _MANIFEST)
  for folder in (aside, *(path for path in aside.rglob('*') if path.is_dir())):
    _sync(folder)
  place = directory / f'{number:06d}'
  os.rename(aside, place)
  _sync(directory)
  known.clear()
  known.update(now)
  return place


def prune(directory: Path, kept: int, keep_every: int | None) -> None:
  """Removes all but the newest, and those that are kept for good.

  Args:
    directory: where snapshots are.
    kept: how many of the newest stay, at least 1.
    keep_every: each snapshot whose number it divides stays for good; None for none.
  """
  for place in numbered(directory)[:-kept]:
    if keep_every is None or int(place.name) % keep_every:
      # Half removed it would be taken for a damaged one.
      going = place.with_name(f'{_ASIDE}old-{place.name}')
      with contextlib.suppress(OSError):
        os.rename(place, going)
      shutil.rmtree(going, ignore_errors=True)


def link_folder(old: Path, new: Path) -> None:
  """Gives the files of a folder second names; where that can't be, copies them.

  Raises:
    OSError: the disk is full, for example.
  """
  for path in sorted(old.rglob('*')):
    to = new / path.relative_to(old)
    if path.is_dir():
      to.mkdir(parents=True, exist_ok=True)
      continue
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
      os.link(path, to)
    except OSError as error:
      if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EIO):
        raise
      shutil.copyfile(path, to)


@contextlib.contextmanager
def alone(directory: Path, patience: float) -> Iterator[None]:
  """Inside, nobody else writes to this folder of snapshots.

  Args:
    directory: where they are; made if it is missing.
    patience: seconds to wait for one who is about to end.

  Raises:
    UsageError: another one does.
    OSError: the folder can't be made or written.
  """
  directory.mkdir(parents=True, exist_ok=True)
  until = time.monotonic() + patience
  with open(directory / '.lock', 'a') as file:
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        if time.monotonic() >= until:
          raise UsageError(
            f'a run still writes to {directory}; wait for its end, or stop it'
          ) from None
      except OSError:  # A file system without locks: nothing can be said.
        break
      time.sleep(0.1)
    yield


def _next_number(directory: Path) -> int:
  """One above all that there are, damaged ones included."""
  names = (re.match(r'\d+', path.name) for path in directory.iterdir())
  return 1 + max((int(name[0]) for name in names if name), default=0)


def _of_manifest(manifest: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
  checksum = hashlib.sha256()
  with open(path, 'rb', buffering=0) as file:
    while data := file.read(_PIECE_BYTES):
      checksum.update(data)
  return checksum.hexdigest()


def _sync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
