"""What packages this Python has, beside what Callsheet's own metadata asks for."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

# Seconds; TensorFlow alone takes several on a busy machine.
_PATIENCE = 120.0
_DEVICES = (
  'import json, jax; print(json.dumps([jax.__version__, '
  '[[d.platform, d.device_kind] for d in jax.local_devices()]]))'
)
# What is tried out in a process of its own, for it may end that process, or hang.
TRIALS: Mapping[str, str] = {
  'jax': _DEVICES,
  'training': (
    'from callsheet.commands import requirements; requirements.for_training(); '
    'from callsheet.commands import run; run.registry.find("dqn")'
  ),
  'dm-reverb': 'import reverb',
  'dm-launchpad': 'import launchpad',
}


@dataclass(frozen=True)
class Needed:
  """A package that Callsheet, or an extra of it, is declared to need.

  Attributes:
    name: of the distribution.
    wanted: versions, '>=13'; empty for any.
    extra: that needs it; empty for Callsheet itself.
    applies: whether it does on this Python; else there is no wheel.
    of: the distribution that asks for it: Callsheet, or one that an extra is.
    found: the version that is installed; empty if none is.
    fits: whether that is a version which is wanted.
  """

  name: str
  wanted: str
  extra: str
  applies: bool
  of: str
  found: str
  fits: bool


@dataclass(frozen=True)
class Trial:
  """How a piece of Python went, in a process of its own.

  Attributes:
    said: its last line of output, or else of complaint.
    fine: whether it ended well.
  """

  said: str
  fine: bool


def needed(distribution: str = 'callsheet') -> list[Needed] | None:
  """What a distribution's metadata asks for; None if it isn't installed."""
  try:
    metadata = importlib.metadata.metadata(distribution)
    extras = metadata.get_all('Provides-Extra') or []
    return [each for extra in ('', *extras) for each in _of_extra(distribution, extra)]
  except importlib.metadata.PackageNotFoundError:
    return None


def _of_extra(distribution: str, extra: str) -> Iterator[Needed]:
  from packaging.requirements import Requirement

  for text in importlib.metadata.requires(distribution) or ():
    requirement = Requirement(text)
    marker = requirement.marker
    # With that of the oldest Python, what has no wheel on this one is known, too.
    of_old = {'python_version': '3.10', 'python_full_version': '3.10.0'}
    if marker is not None and extra and marker.evaluate({'extra': '', **of_old}):
      continue
    here = marker is None or marker.evaluate({'extra': extra})
    anywhere = here or (
      marker is not None and marker.evaluate({'extra': extra, **of_old})
    )
    if not anywhere or (marker is None and extra):
      continue
    found = installed(requirement.name)
    yield Needed(
      requirement.name,
      str(requirement.specifier),
      extra,
      here,
      distribution,
      found,
      bool(found) and requirement.specifier.contains(found, prereleases=True),
    )
    if here and found:
      for inner in requirement.extras:
        for each in _of_extra(requirement.name, inner):
          yield dataclasses.replace(each, extra=extra)


def installed(distribution: str) -> str:
  """The version of a distribution; empty if it isn't installed."""
  with contextlib.suppress(importlib.metadata.PackageNotFoundError):
    return importlib.metadata.version(distribution)
  return ''


def try_out(names: Mapping[str, str]) -> dict[str, Trial]:
  """Runs pieces of Python, each in a process of its own, some at a time."""
  with ThreadPoolExecutor(
    max(1, min(len(names), len(os.sched_getaffinity(0))))
  ) as pool:
    going: dict[str, Future[Trial]] = {
      name: pool.submit(_try, code) for name, code in names.items()
    }
    return {name: future.result() for name, future in going.items()}


def _try(code: str) -> Trial:
  try:
    ended = subprocess.run(
      [sys.executable, '-c', code],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors='replace',
      timeout=_PATIENCE,
    )
  except subprocess.TimeoutExpired:
    return Trial(f'no answer within {_PATIENCE:.0f} s', False)
  lines = [line for line in ended.stdout.splitlines() if line.strip()]
  if ended.returncode:
    said = [line for line in ended.stderr.splitlines() if line.strip()]
    return Trial((said or [f'it ended with code {ended.returncode}'])[-1], False)
  return Trial((lines or [''])[-1], True)


def devices(trial: Trial) -> tuple[str, list[tuple[str, str]]]:
  """JAX's version, and the platform and kind of each device, of its trial."""
  version, found = json.loads(trial.said)
  return str(version), [(str(where), str(kind)) for where, kind in found]
