"""A port for Reverb that is taken; this file is run where Reverb is installed."""

from __future__ import annotations

import os
import socket

import pytest

from callsheet.commands import online
from callsheet.commands.main import main
from tests.commands.conftest import refusal


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_port_that_is_taken(capsys, place):
  with socket.create_server(('', 0)) as taken:
    port = taken.getsockname()[1]
    line = refusal(capsys, 'run', 'dqn', '--replay=reverb', f'--replay_port={port}')
  assert line.startswith(f'port {port} can not be had, for it is taken')
  assert '--replay_port' in line
  assert os.listdir(place) == []


@pytest.mark.timeout(180)
def test_port_that_is_taken_between_the_check_and_the_start(capfd, place, monkeypatch):
  monkeypatch.setattr(online, '_check_port', lambda port: None)
  with socket.create_server(('', 0)) as taken, pytest.raises(SystemExit) as ended:
    port = taken.getsockname()[1]
    main(['run', 'dqn', '--replay=reverb', '--name=mine', f'--replay_port={port}'])
  out, err = capfd.readouterr()
  assert ended.value.code == 2
  assert f'callsheet: port {port} for Reverb is taken; port=None picks a free' in err
  assert err.count('\n') == 1
  assert 'Traceback' not in out
  assert os.listdir(place) == []
