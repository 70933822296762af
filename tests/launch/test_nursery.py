"""Units that are forked off the nursery: when, and that nobody can tell."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.launch.conftest import wait_for

pytestmark = [
  pytest.mark.timeout(120),
  pytest.mark.skipif(sys.platform != 'linux', reason='a nursery takes Linux'),
]


def gone(pid: int) -> bool:
  """Whoever inherits what is left of a process may take its time to reap it."""
  try:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return True


@pytest.fixture
def witnesses(launched, tmp_path) -> Callable[..., tuple[int, list[dict]]]:
  """Runs them, interrupts the program, and returns the launcher and what they saw."""
  folder = tmp_path / 'seen'
  folder.mkdir()

  def witnesses(backend: str, *settings: str) -> tuple[int, list[dict]]:
    process = launched(backend, 'witnesses', str(folder), *settings)
    files = [folder / f'w{index}.json' for index in range(len(settings))]
    wait_for(lambda: all(map(Path.exists, files)) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    for index in range(len(settings)):
      assert f'w{index} was here' in (tmp_path / 'logs' / f'w{index}.log').read_text()
    return process.pid, [json.loads(file.read_text()) for file in files]

  return witnesses


def test_forked_off_one_process_that_ends(witnesses):
  launcher, seen = witnesses('forked', '', '', '')
  (nursery,) = {unit['parent'] for unit in seen}
  assert nursery != launcher
  assert gone(nursery)


def test_forked_unit_is_like_a_spawned_one(witnesses):
  _, seen = witnesses('forked', '', '', 'MINE=1')
  *forked, spawned = seen
  del spawned['environment']['MINE']
  for unit in forked:
    assert unit['environment'] == spawned['environment']
    assert len(unit['pipes']) == len(spawned['pipes'])
  for unit in seen:
    assert unit['group'] == unit['pid']
    assert unit['terminate']
  for one, other in itertools.combinations(seen, 2):
    assert not set(one['pipes']) & set(other['pipes'])
    assert one['draws'][0] != other['draws'][0]
    assert one['draws'][1] != other['draws'][1]


@pytest.mark.parametrize('setting', ['MINE=1', 'OMP_NUM_THREADS=2', 'gpu'])
def test_unit_that_imports_might_find_otherwise_is_spawned(
  witnesses, setting, monkeypatch
):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  launcher, (like, unlike) = witnesses('forked', '', setting)
  assert like['parent'] != launcher
  assert unlike['parent'] == launcher
  if '=' in setting:
    name, value = setting.split('=')
    assert unlike['environment'][name] == value


@pytest.mark.parametrize('backend', ['threaded', 'processes'])
def test_launcher_that_must_not_or_will_not_fork(witnesses, backend):
  launcher, seen = witnesses(backend, '', '')
  assert [unit['parent'] for unit in seen] == [launcher, launcher]


def test_backend_of_jax_that_computes_is_not_forked():
  code = (
    'import jax\n'
    'from callsheet.launch.nursery import can_fork\n'
    'print(can_fork(), float(jax.numpy.zeros(())), can_fork())'
  )
  single = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
  environment = {
    **os.environ,
    **single,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(sys.path),
  }
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    env=environment,
  )
  assert done.stdout.split() == ['True', '0.0', 'False']


def test_exit_code_and_what_it_leaves(launched, tmp_path):
  process = launched('forked', 'leaving', str(tmp_path / 'child'))
  output, _ = process.communicate(timeout=30)
  assert "node 'leaving' failed: its process exited with code 3" in output
  child = int((tmp_path / 'child').read_text())
  wait_for(lambda: gone(child))


def test_restarted_from_the_nursery_and_without_it(launched, tmp_path):
  file = tmp_path / 'w0.json'

  def life() -> dict:
    wait_for(file.exists)
    seen = json.loads(file.read_text())
    file.unlink()
    return seen

  process = launched('forked', 'witnesses', str(tmp_path), '')
  first = life()
  os.kill(first['pid'], signal.SIGKILL)
  second = life()
  assert second['pid'] != first['pid']
  assert second['parent'] == first['parent'] != process.pid
  os.kill(second['parent'], signal.SIGKILL)
  third = life()
  assert third['parent'] == process.pid
  assert gone(second['pid'])
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 130, output
