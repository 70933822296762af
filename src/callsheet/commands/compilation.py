"""What one run has compiled, the next one needn't: JAX's cache on disk."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

_DIRECTORY = 'JAX_COMPILATION_CACHE_DIR'


def keep(environment: MutableMapping[str, str]) -> None:
  """Has JAX keep every program below the user's cache directory, before its import.

  Whoever has set JAX's own variables already is left alone; an empty
  `JAX_COMPILATION_CACHE_DIR` keeps nothing. Where the directory can't be made, each
  process compiles for itself.

  Args:
    environment: of this process; those of the nodes inherit it.
  """
  if _DIRECTORY not in environment:
    # The specification of XDG has relative paths ignored.
    cache = Path(environment.get('XDG_CACHE_HOME') or '')
    if not cache.is_absolute():
      cache = Path(environment.get('HOME') or os.path.expanduser('~'), '.cache')
    folder = cache / 'callsheet' / 'jax'
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError:
      return
    environment[_DIRECTORY] = str(folder)
  # An agent's programs are small ones: by default none would be kept.
  environment.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
