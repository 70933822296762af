"""What is Reverb's own about `ReverbReplay`: its port, its log, its absence."""

from __future__ import annotations

import dataclasses
import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes.reverb_replay import ReverbReplay

pytestmark = pytest.mark.timeout(60)

TABLE = Table('t', {'x': specs.Array((), np.float32)}, 10)


def listening(port):
  with socket.socket() as client:
    return client.connect_ex(('127.0.0.1', port)) == 0


def run(program):
  return subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, timeout=60
  )


def test_the_port_is_the_one_wanted_and_free_behind_close():
  replay = ReverbReplay([TABLE])
  port = replay.port
  assert listening(port)
  replay.close()
  assert not listening(port)
  again = ReverbReplay([TABLE], port=port)
  assert again.port == port
  again.close()


def test_a_port_that_another_reverb_holds_is_refused():
  first = ReverbReplay([TABLE])
  with pytest.raises(UsageError, match=rf'port {first.port} for Reverb is taken'):
    ReverbReplay([TABLE], port=first.port)
  first.insert('t', {'x': np.ones(3, np.float32)})
  assert first.statistics()['t'].size == 3
  first.close()


def test_a_port_that_anything_holds_is_refused(tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    with pytest.raises(UsageError, match='is taken; port=None picks a free one'):
      ReverbReplay([TABLE], port=port, checkpoint_directory=str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_the_listener_is_bound_to_the_loopback_device():
  replay = ReverbReplay([TABLE])
  devices = []
  for name in os.listdir('/proc/self/fd'):
    try:
      found = socket.socket(fileno=os.dup(int(name)))
    except OSError:
      continue
    with found:
      listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
      if listens and found.getsockname()[1] == replay.port:
        devices.append(found.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16))
  replay.close()
  assert devices and all(device.rstrip(b'\0') == b'lo' for device in devices)


def test_where_reverb_is_missing_one_line_says_the_way_out(monkeypatch):
  monkeypatch.setitem(sys.modules, 'reverb', None)
  with pytest.raises(UsageError, match=r'Python 3\.10') as caught:
    ReverbReplay([TABLE])
  assert '\n' not in str(caught.value)


def test_naming_the_type_imports_no_tensorflow():
  done = run(
    'import sys; from callsheet.nodes.reverb_replay import ReverbReplay;'
    "print([m for m in ('tensorflow', 'reverb') if m in sys.modules])"
  )
  assert done.stdout.strip() == '[]', done.stderr


def test_a_process_ends_quietly():
  done = run("""
import numpy as np
from dm_env import specs
from callsheet.agents.base import Table
from callsheet.nodes.reverb_replay import ReverbReplay
replay = ReverbReplay([Table('t', {'x': specs.Array((), np.float32)}, 1000)])
for _ in range(5):
  replay.insert('t', {'x': np.ones(100, np.float32)})
replay.sample('t', 64)
replay.close()
""")
  assert done.returncode == 0, done.stderr
  noise = [line for line in done.stderr.splitlines() if line]
  assert len(noise) <= 3, done.stderr
  assert 'Traceback' not in done.stderr


def test_statistics_say_nan_to_what_reverb_does_not_tell():
  weighted = dataclasses.replace(TABLE, name='w', sampler='prioritized')
  replay = ReverbReplay([TABLE, weighted])
  for name, mass in (('t', 0.0), ('w', math.nan)):
    before = replay.statistics()[name]
    assert math.isnan(before.samples_per_insert)
    np.testing.assert_equal(before.mass, mass)
    replay.insert(name, {'x': np.ones(4, np.float32)})
    np.testing.assert_equal(replay.statistics()[name].mass, 4.0 if mass == 0 else mass)
    replay.sample(name, 2)
    now = replay.statistics()[name]
    assert now.samples_per_insert == 0.5 and now.mass == pytest.approx(4.0)
    assert math.isnan(now.sample_age) and math.isnan(now.oldest_sample_age)
  replay.close()
