"""Which snapshot a run goes on from, and what is laid out for its nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from callsheet.errors import UsageError
from callsheet.nodes import snapshots
from callsheet.nodes.snapshotter import lay_out_replay

# Seconds for the nodes of a run that was killed to be gone.
_PATIENCE = 30.0


class Chosen(NamedTuple):
  """A snapshot to go on from.

  Attributes:
    snapshot: the newest that serves.
    has_replay: whether what its replay held is there and whole.
    said: lines on what was passed over, and what was taken instead.
  """

  snapshot: snapshots.Snapshot
  has_replay: bool
  said: tuple[str, ...]


def choose(directory: Path) -> Chosen:
  """The newest whole snapshot; if there is none, the newest with a whole learner.

  Raises:
    UsageError: there is none, or no learner's state is whole.
  """
  if not snapshots.numbered(directory):
    raise UsageError(
      f'there is no snapshot in {directory}: the run took none, or ended before the '
      'first; begin anew with: callsheet run AGENT --snapshot_every=5m'
    )
  try:
    whole = snapshots.newest(directory)
    assert whole is not None
  except UsageError as damage:
    part = snapshots.newest(directory, part='learner')
    assert part is not None
    instead = (
      f'{damage}; going on from the learner of {part.place.name}, without replay'
    )
    return Chosen(part, False, (instead,))
  said = tuple(
    f'snapshot {place.name} is damaged ({why}); going back to {whole.place.name}'
    for place, why in whole.passed_over
  )
  return Chosen(whole, (whole.place / 'replay').is_dir(), said)


def lay_out(
  run_directory: Path, chosen: Chosen, replay_folders: Sequence[Path]
) -> None:
  """Has the nodes find what was chosen, and nothing newer.

  Damaged snapshots that are newer are renamed, for a person to look at. The folders of
  the replay's checkpoints, one a shard, get what the snapshot has of them; without any
  it begins empty.

  Raises:
    UsageError: a run still goes on there, or it can't be written.
  """
  directory = run_directory / snapshots.IN_RUN
  try:
    with snapshots.alone(directory, _PATIENCE):
      for place in snapshots.numbered(directory):
        if place.name > chosen.snapshot.place.name:
          os.rename(place, place.with_name(f'{place.name}{snapshots.DAMAGED}'))
      lay_out_replay(
        chosen.snapshot.place if chosen.has_replay else None, replay_folders
      )
  except OSError as error:
    raise UsageError(
      f'{run_directory} can not be written ({error.strerror or error}), which a run '
      'that goes on has to'
    ) from None


def described(chosen: Chosen) -> str:
  """Where the run goes on, in one line."""
  manifest = chosen.snapshot.manifest
  counts, at = manifest['counts'], time.localtime(manifest['time'])
  steps = ', '.join(
    f'{counts.get(name, 0):,} {what}'
    for name, what in (
      ('actor_steps', 'environment steps'),
      ('learner_steps', 'learner steps'),
    )
  )
  return (
    f'goes on from snapshot {chosen.snapshot.place.name} of '
    f'{time.strftime("%Y-%m-%d %H:%M:%S", at)}: {steps}'
  )
