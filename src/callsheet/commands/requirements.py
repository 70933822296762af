"""What must be there before anything starts."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterable

from callsheet.errors import UsageError

# By module: the distribution that has it. Some are imported late, in a node or at the
# end of a run, where it would be a pity to find out.
_PLAYING = {
  'numpy': 'numpy',
  'jax': 'jax',
  'haiku': 'dm-haiku',
  'optax': 'optax',
  'dm_env': 'dm-env',
  'gymnasium': 'gymnasium',
  'orbax': 'orbax-checkpoint',
}
_TRAINING = _PLAYING | {
  'rlax': 'rlax',
  'matplotlib': 'matplotlib',
  'rich': 'rich',
}
_REVERB = {'reverb': 'dm-reverb', 'tensorflow': 'tensorflow-cpu'}


def for_training() -> None:
  """Raises a `UsageError` that names the packages that any training misses."""
  _check(_TRAINING)


def for_reverb() -> None:
  """Raises a `UsageError` that names the packages that a Reverb replay misses."""
  _check(_REVERB, '; or take --replay=native, which needs none of them')


def for_playing() -> None:
  """Raises a `UsageError` that names the packages that playing a policy misses."""
  _check(_PLAYING)


def _check(packages: dict[str, str], way_out: str = '') -> None:
  missing = list(_missing(packages))
  if missing:
    raise UsageError(
      f'not installed for this Python {platform.python_version()} ({sys.executable}): '
      f'{", ".join(packages[module] for module in missing)}; the whole set has wheels '
      'for Python 3.10 on Linux, and `make run` in a checkout sets it up in .venv'
      f'{way_out}'
    )


def _missing(modules: Iterable[str]) -> Iterable[str]:
  for module in modules:
    try:
      found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
      found = False
    if not found:
      yield module
