"""What must be alike on every host, for pickles to mean the same there."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

_PACKAGES = ('callsheet', 'jax', 'numpy', 'cloudpickle')


def versions() -> dict[str, str]:
  """This process's Python (major, minor) and packages; 'none' where there is none."""
  found = {'Python': '.'.join(platform.python_version_tuple()[:2])}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = 'none'
  return found


def difference(
  here: Mapping[str, str], there: Mapping[str, str], than: str = 'the launcher'
) -> str:
  """What differs, in words; empty if nothing does.

  Args:
    here: versions as they should be.
    there: as they are.
    than: who has those of `here`.
  """
  return ', '.join(
    f'{name} {there.get(name, "none")} where {than} has {version}'
    for name, version in here.items()
    if there.get(name) != version
  )
