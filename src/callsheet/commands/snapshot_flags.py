"""`--snapshot_every=5m` and its like."""

from __future__ import annotations

import re

from absl import flags

from callsheet.errors import UsageError
from callsheet.programs.snapshotting import Snapshots

OWN = ('snapshot_every', 'snapshots_kept', 'snapshot_keep_every')

_SECONDS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400}


def define(values: flags.FlagValues) -> None:
  """Defines the flags."""
  flags.DEFINE_string(
    'snapshot_every',
    '5m',
    'Time from one snapshot to the next, 30s, 5m or 2h; with none `callsheet resume` '
    'has nothing to go on from.',
    flag_values=values,
  )
  flags.DEFINE_integer(
    'snapshots_kept', 3, 'So many of the newest snapshots stay.', 1, flag_values=values
  )
  flags.DEFINE_integer(
    'snapshot_keep_every',
    None,
    'Each so-manieth snapshot stays for good.',
    1,
    flag_values=values,
  )


def read(values: flags.FlagValues) -> Snapshots | None:
  """What the command line asks for; None for no snapshots.

  Raises:
    UsageError: `--snapshot_every` is no length of time.
  """
  if values.snapshot_every == 'none' or values.lock_step:
    return None
  return Snapshots(
    seconds(values.snapshot_every), values.snapshots_kept, values.snapshot_keep_every
  )


def seconds(text: str) -> float:
  """The seconds of '30s', '5m', '2h', '1d' or '90'.

  Raises:
    UsageError: it is none of these, or no time at all.
  """
  found = re.fullmatch(r'(\d+(?:\.\d+)?)([smhd]?)', text)
  if found is None or not float(found[1]):
    raise UsageError(
      f'--snapshot_every takes a time such as 30s, 5m or 2h, or none, got {text!r}'
    )
  return float(found[1]) * _SECONDS[found[2]]
