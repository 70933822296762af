"""`callsheet run --tensorboard --prometheus_port --wandb`: what each is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.commands.conftest import Shell, end, refusal, wait_for
from tests.commands.test_run import ENDLESS, SMALL, pids, steps
from tests.nodes import fake_wandb

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def with_wandb(shell: Shell) -> Shell:
  """A shell whose wandb writes down what it is told."""
  shell.customize('')
  assert fake_wandb.__file__ is not None
  shutil.copy(fake_wandb.__file__, shell.place / 'site' / 'wandb.py')
  return shell


def told(run: Path) -> list[tuple[str, dict[str, object]]]:
  lines = (run / 'wandb.jsonl').read_text().splitlines()
  return [tuple(json.loads(line)) for line in lines]


def free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as server:
    return int(server.getsockname()[1])


def test_all_of_them_and_a_clean_end(with_wandb: Shell):
  port = free_port()
  process = with_wandb.start(
    'run',
    'dqn',
    '--name=mine',
    '--tensorboard',
    f'--prometheus_port={port}',
    '--wandb=mine-too',
    '--max_actor_steps=6000',
    *SMALL,
  )
  run = with_wandb.place / 'runs' / 'mine'
  pages: list[str] = []

  def look() -> bool:
    try:
      with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics') as page:
        pages.append(page.read().decode())
    except OSError:
      pass
    return 'callsheet_learner_steps_total' in ''.join(pages) or (
      process.poll() is not None
    )

  wait_for(look)
  code, out, err = end(process)
  assert (code, err) == (0, ''), out
  assert 'gets no more rows' not in out
  assert 'callsheet_run_state{state="running"} 1.0' in pages[-1]
  calls = told(run)
  assert calls[0][1]['project'] == 'mine-too' and calls[0][1]['name'] == 'mine'
  assert calls[0][1]['config']['flags']['env'] == 'CartPole-v1'
  rows = [details for what, details in calls if what == 'log']
  assert rows[-1]['actor_steps'] == steps(run, 'actor_steps') > 0
  assert calls[-1] == ('finish', {'exit_code': 0, 'outcome': 'finished'})
  assert any(b'finished' in f.read_bytes() for f in (run / 'tensorboard').iterdir())
  config = json.loads((run / 'config.json').read_text())
  assert config['flags']['wandb'] == 'mine-too'


@pytest.mark.parametrize('how', ['the learner dies', 'pre-empted'])
def test_an_end_that_is_none_is_not_reported_as_finished(with_wandb: Shell, how: str):
  # Without snapshots a learner that dies is not restarted.
  process = with_wandb.start(
    'run', 'dqn', '--name=mine', '--wandb=p', '--snapshot_every=none', *ENDLESS
  )
  run = with_wandb.place / 'runs' / 'mine'
  wait_for(lambda: steps(run, 'learner_steps') > 0)
  if how == 'pre-empted':
    process.send_signal(signal.SIGTERM)
  else:
    for pid in pids(run, 'learner'):
      os.kill(pid, signal.SIGKILL)
  code, out, _ = end(process)
  assert code != 0, out
  outcome = 'interrupted' if how == 'pre-empted' else 'failed'
  assert told(run)[-1] == ('finish', {'exit_code': 1, 'outcome': outcome})


def test_a_sink_that_is_down_costs_a_line_and_nothing_else(with_wandb: Shell):
  code, out, err = with_wandb.run(
    'run',
    'dqn',
    '--name=mine',
    '--backend=threads',
    '--wandb=down',
    '--max_actor_steps=3000',
    *SMALL,
  )
  assert code == 0, out
  lines = [line for line in err.splitlines() if line]
  assert lines == [
    'Weights & Biases gets no more rows (ConnectionError: no route to wandb); the run '
    'goes on, and so do its files'
  ]
  assert steps(with_wandb.place / 'runs' / 'mine', 'actor_steps') > 0


@pytest.mark.parametrize(
  ('module', 'flag', 'expected'),
  [
    ('tensorboardX', '--tensorboard', 'TensorBoard needs tensorboardX: pip install '),
    ('prometheus_client', '--prometheus_port=9', 'Prometheus needs prometheus_client:'),
    ('wandb', '--wandb=p', 'Weights & Biases needs wandb: pip install "callsheet[wan'),
  ],
)
def test_a_package_that_is_missing(shell: Shell, module: str, flag: str, expected: str):
  shell.hide(module)
  code, out, err = shell.run('run', 'dqn', flag)
  assert (code, out) == (2, '')
  assert err.startswith(f'callsheet: {expected}') and err.count('\n') == 1
  assert not (shell.place / 'runs').exists()


def test_a_port_that_is_taken(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    line = refusal(capsys, 'run', 'dqn', f'--prometheus_port={port}')
  assert line.startswith(f'--prometheus_port={port}: 127.0.0.1 can not be listened at')
  line = refusal(capsys, 'run', 'dqn', '--prometheus_host=0.0.0.0')
  assert 'needs --prometheus_port=9100' in line
  assert list(tmp_path.iterdir()) == []
