"""An exported policy acts as the agent's own, loaded with jax alone."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import registry
from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes import exported
from callsheet.nodes.playing import jit_policy

pytestmark = pytest.mark.timeout(120)

SHOWS = specs.Array((4,), np.float32)
DISCRETE = EnvironmentSpec(SHOWS, specs.DiscreteArray(3, np.int32))
CONTINUOUS = EnvironmentSpec(SHOWS, specs.BoundedArray((2,), np.float32, -1, 1))


def made(name, spec):
  entry = registry.find(name)
  agent = entry.make(spec, entry.config())
  return agent, agent.parameters(jax.jit(agent.init)(jax.random.PRNGKey(1)))


@pytest.mark.parametrize(
  ('name', 'spec'), [('dqn', DISCRETE), ('r2d2', DISCRETE), ('sac', CONTINUOUS)]
)
def test_it_acts_as_the_agent_does(tmp_path, name, spec):
  agent, params = made(name, spec)
  folder = str(tmp_path / 'policy')
  exported.write(folder, agent, params, {'env': 'Mine-v0'})
  loaded = exported.load(folder)
  assert loaded.notes['env'] == 'Mine-v0' and loaded.notes['agent'] == name
  act = jit_policy(agent.evaluation_policy)
  for count in (1, 3):
    carry, own = agent.initial_carry(count), loaded.initial_carry(count)
    key = own_key = jax.random.PRNGKey(5)
    for step in range(4):
      shown = np.random.default_rng(step).normal(size=(count, 4)).astype(np.float32)
      action, carry, key = act(params, carry, shown, key)
      same, own, own_key = loaded.act(None, own, shown, own_key)
      np.testing.assert_allclose(same, action, rtol=1e-5, atol=1e-6)


def test_it_loads_without_callsheet(tmp_path):
  agent, params = made('r2d2', DISCRETE)
  folder = tmp_path / 'policy'
  exported.write(str(folder), agent, params, {})
  code = (
    'import sys\n'
    'for name in ("callsheet", "haiku", "optax", "rlax", "dm_env", "gymnasium"):\n'
    '  sys.modules[name] = None\n'
    'import numpy as np\n'
    'from policy import Policy\n'
    'policy, shown = Policy(2), np.ones((2, 4), np.float32)\n'
    'print(policy(shown).shape)\n'
    'first = [np.array(row) for row in policy._carry]\n'
    'policy.reset([True, False])\n'
    'policy(shown)\n'
    'for row, before in zip(policy._carry, first):\n'
    '  np.testing.assert_allclose(row[0], before[0], rtol=1e-5)\n'
    'now = [np.asarray(row) for row in policy._carry]\n'
    'print(any((row[1] != old[1]).any() for row, old in zip(now, first)))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=folder,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split('\n') == ['(2,)', 'True', '']


def test_what_can_not_be_written_or_read(tmp_path):
  agent, params = made('dqn', DISCRETE)
  (tmp_path / 'there').mkdir()
  with pytest.raises(UsageError, match=r'there can not be made \(File exists\)'):
    exported.write(str(tmp_path / 'there'), agent, params, {})
  exported.write(str(tmp_path / 'policy'), agent, params, {})
  (tmp_path / 'policy' / 'policy.jax').write_bytes(b'cut')
  with pytest.raises(UsageError, match='policy holds no exported policy: '):
    exported.load(str(tmp_path / 'policy'))
