"""Programs in a process of their own that are interrupted, killed and debugged."""

from __future__ import annotations

import glob
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.launch.conftest import wait_for


@pytest.fixture(params=['threads', 'processes', 'forked', 'ssh'])
def name(request: pytest.FixtureRequest) -> str:
  """Of a backend that tests/launch/main.py knows."""
  return request.param


def wait_for_nodes(process: subprocess.Popen[str], path: Path, count: int) -> None:
  """Waits until so many nodes have begun to run."""
  started = Path(f'{path}.started')

  def there() -> bool:
    assert process.poll() is None, process.communicate()[0]
    return started.exists() and len(started.read_text()) == count

  wait_for(there)


def test_interrupt_stops_in_order(name, launched, tmp_path):
  path = tmp_path / 'closed'
  process = launched(name, 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 130, output
  assert 'Traceback' not in output
  closed = path.read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']


def test_terminate_stops_in_order(name, launched, tmp_path):
  path = tmp_path / 'closed'
  process = launched(name, 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  process.terminate()
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert path.read_text().split()[-1] == 'counter'


def test_second_interrupt_ends_at_once(name, launched, tmp_path):
  path = tmp_path / 'stubborn'
  process = launched(name, 'stubborn', str(path))
  wait_for_nodes(process, path, 1)
  process.send_signal(signal.SIGINT)
  time.sleep(1.0)
  assert process.poll() is None, 'it did not give the node its time to close'
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)  # A close and a grace of 60 s each are cut short.
  assert process.returncode == 130


@pytest.mark.parametrize('name', ['processes', 'forked'])
def test_killed_node_is_the_one_that_is_shown(launched, name):
  process = launched(name, 'killed')
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


@pytest.mark.parametrize(('name', 'count'), [('processes', 5), ('forked', 6)])
def test_processes_die_with_their_killed_parent(launched, tmp_path, name, count):
  path = tmp_path / 'closed'
  process = launched(name, 'ordered', str(path))
  wait_for_nodes(process, path, 5)
  children = psutil.Process(process.pid).children(recursive=True)
  assert len(children) == count
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
