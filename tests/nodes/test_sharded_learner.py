"""A learner on several devices and processes: what one device makes of it all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from callsheet.errors import UsageError
from callsheet.nodes import checkpoints
from callsheet.nodes.sharding import ManyDevices
from tests.nodes.spmd_learner import AGENTS, UPDATES

pytestmark = pytest.mark.timeout(300)


def learn(folder, name, processes, devices):
  """What each process has found, by rank."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    coordinator = f'127.0.0.1:{probe.getsockname()[1]}'
  flags = f'--xla_force_host_platform_device_count={devices}'
  environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  folder.mkdir()
  command = [sys.executable, '-m', 'tests.nodes.spmd_learner']
  started = [
    subprocess.Popen(
      [*command, str(rank), str(processes), coordinator, name, str(folder)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(processes)
  ]
  try:
    for process in started:
      output, _ = process.communicate(timeout=100)
      assert process.returncode == 0, output
  finally:
    for process in started:
      process.kill()
      process.wait()
  return [dict(np.load(folder / f'{rank}.npz')) for rank in range(processes)]


def arrays(found):
  return [value for name, value in found.items() if name.startswith('arr_')]


@pytest.fixture(scope='module', params=['dqn', 'spread'])
def alone(request, tmp_path_factory):
  """The agent's name and what one process with one device has found."""
  folder = tmp_path_factory.mktemp('alone') / 'run'
  (found,) = learn(folder, request.param, 1, 1)
  assert found['devices'] == 1
  return request.param, found, folder


@pytest.mark.parametrize('processes, devices', [(1, 4), (2, 2), (2, 1)])
def test_as_one_device_after_a_hundred_updates(alone, tmp_path, processes, devices):
  name, expected, expected_folder = alone
  found = learn(tmp_path / 'run', name, processes, devices)
  assert all(each['devices'] == processes * devices for each in found)
  for each in found:
    for got, wanted in zip(arrays(each), arrays(expected), strict=True):
      np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)
  # All hold the same, to the last bit.
  for got, wanted in zip(arrays(found[-1]), arrays(found[0]), strict=True):
    np.testing.assert_array_equal(got, wanted)
  # Priorities come from the process that drew the rows.
  keys = np.concatenate([each['keys'] for each in found])
  priorities = np.concatenate([each['priorities'] for each in found])
  order = np.argsort(keys)
  np.testing.assert_array_equal(keys[order], expected['keys'])
  np.testing.assert_allclose(priorities[order], expected['priorities'], atol=1e-4)
  # Only the first counts, records and saves.
  assert [int(each['counted']) for each in found] == [UPDATES] + [0] * (processes - 1)
  assert [bool(each['recorded']) for each in found] == [True] + [False] * (
    processes - 1
  )
  like = jax.eval_shape(AGENTS[name]().init, jax.random.PRNGKey(0))
  like = jax.tree.map(lambda each: np.zeros(each.shape, each.dtype), like)
  saved, wanted = (
    checkpoints.restore(str(folder / 'checkpoint'), like)
    for folder in (tmp_path / 'run', expected_folder)
  )
  for got, want in zip(jax.tree.leaves(saved), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
  'devices, takes', [(3, '15 or 18'), (5, '15 or 20'), (32, '32')]
)
def test_devices_that_can_not_share_a_batch(monkeypatch, devices, takes):
  monkeypatch.setattr(jax, 'devices', lambda: [jax.local_devices()[0]] * devices)
  monkeypatch.setattr(jax, 'local_device_count', lambda: devices)
  with pytest.raises(UsageError) as caught:
    ManyDevices(AGENTS['dqn']())
  assert str(caught.value) == (
    f"agent 'dqn' samples batches of 16, which {devices} devices can not share evenly; "
    f'take a batch_size of {takes}, or other devices'
  )


def test_processes_of_unlike_devices(monkeypatch):
  monkeypatch.setattr(jax, 'devices', lambda: [jax.local_devices()[0]] * 8)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 6)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(UsageError) as caught:
    ManyDevices(AGENTS['dqn']())
  assert str(caught.value) == (
    'the learner has 8 devices in 2 processes, 6 of them in process 0; give each '
    'process as many as the others'
  )


def test_the_reference_has_learnt(alone):
  name, found, _ = alone
  initial = AGENTS[name]().init(jax.random.PRNGKey(3))
  before = jax.tree.leaves(AGENTS[name]().parameters(initial))
  assert any(
    np.abs(now - then).max() > 0.05
    for now, then in zip(arrays(found), before, strict=True)
  )
  assert len(found['keys']) == (UPDATES * 16 if name == 'dqn' else 0)
