"""What all tests share: what one has compiled, the others needn't.

Where tests run beside each other (`-n 2`), each worker has a temporary folder of its
own, for many of them look at what was left there.
"""

from __future__ import annotations

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
  """Before any test imports JAX, and for the processes that they start."""
  if hasattr(config, 'workerinput'):
    own = tempfile.TemporaryDirectory(prefix=f'{config.workerinput["workerid"]}-')
    config.add_cleanup(own.cleanup)
    os.environ['TMPDIR'] = tempfile.tempdir = own.name
  folder = tempfile.TemporaryDirectory(prefix='jax-of-tests-')
  config.add_cleanup(folder.cleanup)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder.name
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
