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
_LISTING = {'gymnasium': 'gymnasium', 'rich': 'rich'}
_SHOWING = {'rich': 'rich', 'absl': 'absl-py', 'cloudpickle': 'cloudpickle'}
_DIAGNOSIS = {'rich': 'rich', 'absl': 'absl-py', 'packaging': 'packaging'}
_REVERB = {'reverb': 'dm-reverb', 'tensorflow': 'tensorflow-cpu'}
_EVERYWHERE = '`make run` in a checkout sets up the whole set, on Python 3.10 to 3.13'
_OLD_ONLY = (
  'take --replay=native, which needs none of them, or Python 3.10 on Linux, where they '
  'end: `make run REPLAY=reverb PYTHON=3.10` in a checkout'
)


def for_training() -> None:
  """Raises a `UsageError` that names the packages that any training misses."""
  _check(_TRAINING, _EVERYWHERE)


def for_reverb() -> None:
  """Raises a `UsageError` that names the packages that a Reverb replay misses."""
  _check(_REVERB, _OLD_ONLY)


def for_playing() -> None:
  """Raises a `UsageError` that names the packages that playing a policy misses."""
  _check(_PLAYING, _EVERYWHERE)


def for_listing() -> None:
  """Raises a `UsageError` that names the packages that listing environments misses."""
  _check(_LISTING, _EVERYWHERE)


def for_showing() -> None:
  """Raises a `UsageError` that names the packages that showing a run misses."""
  _check(_SHOWING, _EVERYWHERE)


def for_diagnosis() -> None:
  """Raises a `UsageError` that names the packages that a diagnosis itself misses."""
  _check(_DIAGNOSIS, _EVERYWHERE)


def _check(packages: dict[str, str], way_out: str) -> None:
  missing = list(_missing(packages))
  if missing:
    raise UsageError(
      f'not installed for this Python {platform.python_version()} ({sys.executable}): '
      f'{", ".join(packages[module] for module in missing)}; {way_out}'
    )


def _missing(modules: Iterable[str]) -> Iterable[str]:
  for module in modules:
    try:
      found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
      found = False
    if not found:
      yield module
