"""Four devices learn what one learns, whatever an agent does with its batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.nodes.sharded_agent import DEVICES


# All others do too; these shuffle, unroll, sort by time and fit a second optimizer.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
  'agent',
  [
    ('ppo', 'lstm_size=8', 'num_epochs=2', 'num_minibatches=2'),
    ('impala',),
    ('r2d2',),
    ('dmpo',),
  ],
  ids=lambda words: words[0],
)
def test_as_one_device_on_the_same_batches(agent):
  flags = f'--xla_force_host_platform_device_count={DEVICES}'
  given = os.environ.get('XLA_FLAGS', '')
  done = subprocess.run(
    [sys.executable, '-m', 'tests.nodes.sharded_agent', *agent],
    capture_output=True,
    text=True,
    timeout=200,
    env={**os.environ, 'XLA_FLAGS': f'{given} {flags}', 'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['count'] > 1_000
  assert found['apart'] < 1e-5
