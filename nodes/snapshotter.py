"""Takes snapshots of a running program: now and then, at its end, and when asked."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from callsheet.calls import call_async, with_deadline
from callsheet.errors import CallsheetError, CourierError, UsageError
from callsheet.nodes import snapshots
from callsheet.nodes.counter import Counter
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay
from callsheet.nodes.snapshots import Learnt

_PACKAGES = ('callsheet', 'jax', 'dm-haiku', 'optax', 'rlax', 'gymnasium', 'numpy')
# Seconds: for what writes arrays, and for what answers at once.
_WRITING, _ANSWERING = 600.0, 10.0
# One that has just been killed may hold the folder for a moment.
_PATIENCE = 10.0


class Saving(Protocol):
  """What has a state to save: a learner."""

  def save(self, directory: str) -> Learnt:
    """Writes its state to a folder that isn't there yet; says how far that is."""
    ...


class Snapshotter:
  """Has each node write down what it holds, while all go on.

  What is promised of a snapshot is said at `nodes.snapshots`. One that fails is
  reported in one line, removed, and harms nothing.

  Args:
    directory: of the run; its snapshots are in `snapshots/` there.
    learner: writes its state.
    counter: its counts are in the manifest.
    recorder: the run's clock, and gets the `number` and `age` of the newest snapshot,
      and how many have `failed`.
    replay: writes checkpoints, of each shard; None where there is nothing to keep.
    period: seconds from the end of one to the next.
    kept: so many of the newest stay.
    keep_every: each one whose number it divides stays for good.
    settle: seconds in which whoever wrote to the replay has counted that, too.

  Raises:
    UsageError: `period` is not above 0, `kept` or `keep_every` is below 1, or another
      run writes to the same folder.
  """

  def __init__(
    self,
    directory: str,
    learner: Saving,
    counter: Counter,
    recorder: Recorder,
    replay: Replay | Sequence[Replay] | None = None,
    *,
    period: float = 300.0,
    kept: int = 3,
    keep_every: int | None = None,
    settle: float = 0.7,
  ) -> None:
    if not period > 0:
      raise UsageError(f'period is {period}, expected seconds above 0')
    if kept < 1:
      raise UsageError(f'kept is {kept}, expected at least 1')
    if keep_every is not None and keep_every < 1:
      raise UsageError(f'keep_every is {keep_every}, expected at least 1, or None')
    self._run_directory = Path(directory)
    self._directory = self._run_directory / snapshots.IN_RUN
    self._learner, self._counter, self._recorder = learner, counter, recorder
    self._shards: Sequence[Replay] = ()
    if replay is not None:
      self._shards = replay if isinstance(replay, Sequence) else (replay,)
    self._period, self._kept, self._keep_every = period, kept, keep_every
    self._settle = settle if self._shards else 0.0
    self._writing = threading.Lock()
    self._checksums: dict[snapshots.Identity, str] = {}
    self._failed = 0
    self._newest: tuple[int, float] | None = None
    self._held = contextlib.ExitStack()
    # A folder that can't be written is said at each snapshot, not here.
    with contextlib.suppress(OSError):
      self._held.enter_context(snapshots.alone(self._directory, _PATIENCE))

  def snapshot(self) -> str:
    """Takes one now; returns its folder.

    Raises:
      UsageError: it can't be written, or a node can't write its part.
      CourierError: a node is away.
    """
    with self._writing:
      aside: Path | None = None
      try:
        aside = snapshots.make_aside(self._directory)
        place = self._write(aside)
        snapshots.prune(self._directory, self._kept, self._keep_every)
      except CourierError:  # Some are an OSError too, but not the disk's.
        raise
      except OSError as error:
        raise UsageError(
          f'no snapshot can be written to {self._directory} ({error.strerror or error})'
        ) from error
      finally:
        if aside is not None:
          shutil.rmtree(aside, ignore_errors=True)
    return str(place)

  def run(self, stop: threading.Event) -> None:
    """Takes one each period, and a last one at the stop."""
    while not stop.wait(self._period):
      self._try()
      self._report()
    self._try()

  def close(self) -> None:
    """Lets go of the folder."""
    self._held.close()

  def _try(self) -> None:
    try:
      self.snapshot()
    except Exception as error:
      self._failed += 1
      present = snapshots.numbered(self._directory)
      still = f'the newest is still {present[-1].name}' if present else 'there is none'
      line = ' '.join(str(error).split()) or type(error).__name__
      logging.getLogger(__name__).warning('no snapshot, %s: %s', still, line)

  def _report(self) -> None:
    figures = {'failed': float(self._failed)}
    if self._newest is not None:
      number, at = self._newest
      figures |= {'number': float(number), 'age': time.monotonic() - at}
    with contextlib.suppress(CallsheetError):
      with_deadline(self._recorder.record, _ANSWERING)('snapshot', figures)

  def _write(self, aside: Path) -> Path:
    began = time.monotonic()
    save = with_deadline(self._learner.save, _WRITING)
    learnt = save(str(aside / 'learner'))
    checkpoints = [
      call_async(with_deadline(shard.checkpoint, _WRITING)) for shard in self._shards
    ]
    for index, checkpoint in enumerate(checkpoints):
      # The replay keeps it till its next ones, which nobody else asks for.
      snapshots.link_folder(Path(checkpoint.result()), aside / 'replay' / str(index))
    time.sleep(self._settle)
    counts = with_deadline(self._counter.counts, _ANSWERING)()
    row = with_deadline(self._recorder.latest, _ANSWERING)()
    config = self._run_directory / 'config.json'
    if config.exists():
      shutil.copyfile(config, aside / config.name)
    about: dict[str, Any] = {
      'counts': {**counts, 'learner_steps': learnt.version},
      'seconds': row.get('seconds', 0.0),
      'learner': learnt._asdict(),
      'versions': _versions(),
      'python': platform.python_version(),
    }
    place = snapshots.publish(aside, self._directory, about, self._checksums)
    self._newest = int(place.name), began
    return place


def _versions() -> dict[str, str]:
  found = {}
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  return found


def lay_out_replay(snapshot: Path | None, folders: Sequence[Path]) -> None:
  """Has the shards of a replay begin with what a snapshot has of them.

  Args:
    snapshot: its folder; None for what isn't to be begun with: they are empty.
    folders: where each shard's checkpoints are; what is in there goes.

  Raises:
    OSError: they can't be written.
  """
  for index, folder in enumerate(folders):
    shutil.rmtree(folder, ignore_errors=True)
    if snapshot is None:
      continue
    os.makedirs(folder)
    snapshots.link_folder(snapshot / 'replay' / str(index), folder / 'replay-000000')
