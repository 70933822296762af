"""What all tests share: what one has compiled, the others needn't.

Where tests run beside each other (`-n 2`), each worker has a temporary folder of its
own, for many of them look at what was left there. What is compiled is shared.
"""

from __future__ import annotations

import os
import re
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, nothing else.
settings.register_profile(
  'busy', deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile('busy')

_CLUSTER = re.compile(r'tests/launch/(?:test_|.*\[)(slurm|ray|kubernetes)(?:\.py|\b)')


def pytest_configure(config: pytest.Config) -> None:
  """Before any test imports JAX, and for the processes that they start."""
  if config.option.markexpr != 'learning':
    # Tests run little of what they compile.
    os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
  if hasattr(config, 'workerinput'):
    own = tempfile.TemporaryDirectory(prefix=f'{config.workerinput["workerid"]}-')
    config.add_cleanup(own.cleanup)
    os.environ['TMPDIR'] = tempfile.tempdir = own.name
    return
  folder = tempfile.TemporaryDirectory(prefix='jax-of-tests-')
  config.add_cleanup(folder.cleanup)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = folder.name
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
  """Gives each worker one group after the other, the largest first."""
  from xdist.scheduler import LoadScopeScheduling

  class Groups(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
      return group(nodeid)

  return Groups(config, log)


def group(nodeid: str) -> str:
  """Of the tests that one worker has: those of a file, which share what is compiled.

  Launch tests start processes of their own and share nothing but a cluster.
  """
  if (found := _CLUSTER.match(nodeid)) is not None:
    return found[1]
  return nodeid if nodeid.startswith('tests/launch/') else nodeid.partition('::')[0]
