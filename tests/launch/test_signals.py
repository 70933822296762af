"""Programs in a process of their own that are interrupted, killed and debugged."""

from __future__ import annotations

import glob
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.launch.conftest import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launched(tmp_path) -> Callable[..., subprocess.Popen[str]]:
  """Starts tests/launch/main.py."""
  (tmp_path / 'temp').mkdir()
  processes: list[subprocess.Popen[str]] = []

  def launched(*args: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
      [sys.executable, '-m', 'tests.launch.main', str(tmp_path / 'logs'), *args],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      cwd=ROOT,
      env=environment,
      **options,
    )
    processes.append(process)
    return process

  yield launched
  for process in processes:
    process.kill()
    process.wait()
    if process.stdout:
      process.stdout.close()


def wait_for_nodes(process: subprocess.Popen[str], path: Path, count: int) -> None:
  """Waits until so many nodes have begun to run."""
  started = Path(f'{path}.started')

  def there() -> bool:
    assert process.poll() is None
    return started.exists() and len(started.read_text()) == count

  wait_for(there)


def test_interrupt_stops_in_order(backend, launched, tmp_path):
  path = tmp_path / 'closed'
  process = launched(backend.name, 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 130, output
  assert 'Traceback' not in output
  closed = path.read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']


def test_terminate_stops_in_order(backend, launched, tmp_path):
  path = tmp_path / 'closed'
  process = launched(backend.name, 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  process.terminate()
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert path.read_text().split()[-1] == 'counter'


def test_second_interrupt_ends_at_once(backend, launched, tmp_path):
  path = tmp_path / 'stubborn'
  process = launched(backend.name, 'stubborn', str(path))
  wait_for_nodes(process, path, 1)
  process.send_signal(signal.SIGINT)
  time.sleep(1.0)
  assert process.poll() is None, 'it did not give the node its time to close'
  begun = time.monotonic()
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  # A close of 60 s and a grace of 10 s are cut short.
  assert time.monotonic() - begun < 8


def test_killed_node_is_the_one_that_is_shown(launched):
  process = launched('processes', 'killed')
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1
  last = output[output.rindex('NodeFailed') :]
  assert "node 'victim' failed: its process was killed by SIGKILL" in last
  assert 'victim.log' in last


def test_killed_node_kills_the_process_of_the_threads(launched):
  process = launched('threads', 'killed')
  process.communicate(timeout=60)
  assert process.returncode == -signal.SIGKILL
  # Nobody was left to remove the folder: that is what SIGKILL means.
  for folder in glob.glob(os.path.join(tempfile.gettempdir(), 'callsheet-*')):
    shutil.rmtree(folder)


def test_processes_die_with_their_killed_parent(launched, tmp_path):
  path = tmp_path / 'closed'
  process = launched('processes', 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  children = psutil.Process(process.pid).children(recursive=True)
  assert len(children) == 5
  process.kill()
  process.wait()
  _gone, alive = psutil.wait_procs(children, timeout=10)
  assert not alive
  assert not glob.glob(os.path.join(tempfile.gettempdir(), 'callsheet-*'))


def test_debugger_in_a_thread(launched):
  terminal, theirs = pty.openpty()
  process = launched('threads', 'debugged', stdin=theirs)
  os.close(theirs)
  # Longer than the deadline of a second: whoever debugs has time to look.
  time.sleep(4)
  os.write(terminal, b'p secret * 2\nc\n')
  output, _ = process.communicate(timeout=30)
  os.close(terminal)
  assert '82' in output
  assert 'the answer is 42' in output, output
  assert process.returncode == 0
