"""`callsheet status` and `callsheet top`: what is shown, and how they are left."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console

from callsheet.commands import status_tables
from callsheet.commands.status import overview
from callsheet.launch.observe.document import (
  EdgeStatus,
  NodeStatus,
  Status,
  Waits,
  to_json,
)
from tests.commands.conftest import Shell, refusal, wait_for

pytestmark = pytest.mark.timeout(120)

NODES = (
  NodeStatus(
    'learner',
    state='running',
    answers=True,
    silent=0.1,
    restarts=2,
    cpu=0.93,
    memory=312_400_000,
    waits=Waits('call', 'replay.sample 71% of the time'),
  ),
  NodeStatus('replay', state='serving', answers=False, silent=9.0, cpu=0.0, memory=99),
  NodeStatus('actor/0', state='restarting', answers=False, silent=3.0),
)
EDGES = (
  EdgeStatus('learner', 'replay', 9, 0, 41.25, 5.2e6, 0.0042, 1.25, 1),
  EdgeStatus('actor/0', 'replay'),
)
STATUS = Status(
  'dqn',
  'processes',
  started=1000.0,
  time=4725.0,
  nodes=NODES,
  edges=EDGES,
  bottleneck='the learner waits for data 71% of the time: add actors',
)


def shown(renderable, width: int = 100) -> list[str]:
  console = Console(file=io.StringIO(), width=width, color_system=None)
  console.print(renderable)
  lines = console.file.getvalue().splitlines()
  return [line.strip() for line in lines if line.strip(' ─')]


def test_all_of_a_run():
  lines = shown(status_tables.whole(STATUS, 'running'))
  assert [re.sub(r' {2,}', ' | ', line) for line in lines] == [
    'dqn, as processes: running for 1:02:05',
    'the learner waits for data 71% of the time: add actors',
    'node | state | restarts | CPU | memory | waits for',
    'learner | running | 2 | 93% | 312.4 MB | replay.sample 71% of the time',
    'replay | silent | 0% | 99 B',
    'actor/0 | restarting',
    'calls | calls/s | bytes/s | p50 | p99 | open',
    'learner → replay | 41.2 | 5.2 MB | 4.20 ms | 1.2 s | 1',
    'actor/0 → replay | - | - | - | -',
  ]


def test_one_that_has_failed_says_why():
  failed = dataclasses.replace(STATUS, state='failed', reason='ValueError: broken')
  assert shown(status_tables.head(failed, 'failed'))[:2] == [
    'dqn, as processes: failed after 1:02:05',
    'ValueError: broken',
  ]


@pytest.mark.parametrize('width', [70, 80, 200])
def test_on_a_narrow_terminal_only_one_column_gives_way(width):
  lines = shown(status_tables.nodes_table(NODES, 3), width=width)
  assert all(len(line) <= width for line in lines)
  words = [line.split() for line in lines]
  assert words[0][:5] == ['node', 'state', 'restarts', 'CPU', 'memory']
  assert words[1][:6] == ['learner', 'running', '2', '93%', '312.4', 'MB']
  rest = ' '.join(' '.join(each) for each in words)
  for word in NODES[0].waits.text.split():
    assert word in rest


def test_a_long_name_of_a_run_is_whole_where_nothing_is_narrow(shell: Shell):
  name = 'dqn-CartPole-v1-seed0-20261127-111352-with-a-long-name'
  made(shell.place, name, STATUS, seconds=5.0, actor_steps=10**9, learner_steps=10**9)
  code, out, err = shell.run('status')
  assert (code, err) == (0, '')
  assert re.search(rf'^ {name} +lost +0/3 +0:00:05 +1,000,000,000 ', out, re.MULTILINE)
  narrow = Console(file=io.StringIO(), width=80, color_system=None)
  runs = status_tables.narrowed(overview(str(shell.place / 'runs')))
  narrow.print(runs)
  assert 'dqn-CartPo' in narrow.file.getvalue() and 'lost' in narrow.file.getvalue()


def test_of_many_nodes_those_that_matter_are_shown():
  many = [
    NodeStatus(f'actor/{i}', state='running', answers=True, silent=0.0, cpu=i / 100)
    for i in range(40)
  ]
  many[7] = dataclasses.replace(many[7], state='failed')
  many[9] = dataclasses.replace(many[9], answers=False, silent=8.0)
  edges = [EdgeStatus(f'actor/{i}', 'replay', calls_per_second=i) for i in range(40)]
  status = dataclasses.replace(STATUS, nodes=tuple(many), edges=tuple(edges))
  lines = shown(status_tables.whole(status, 'running', height=30))
  assert len(lines) <= 30
  text = '\n'.join(lines)
  for name in ('actor/7 ', 'actor/9 ', 'actor/39 ', 'actor/39 →'):
    assert name in text
  assert 'actor/0 ' not in text
  assert re.search(r'\.\.\. \d+ nodes more', text)
  assert re.search(r'\.\.\. \d+ edges more', text)


@pytest.mark.parametrize(
  ('function', 'value', 'text'),
  [
    (status_tables.duration, 59.9, '0:00:59'),
    (status_tables.duration, 3 * 86400 + 3725, '3 d 1:02:05'),
    (status_tables.size, 999, '999 B'),
    (status_tables.size, 1500, '1.5 kB'),
    (status_tables.size, 2.5e12, '2500.0 GB'),
    (status_tables.latency, None, '-'),
    (status_tables.latency, 0.00004, '0.04 ms'),
    (status_tables.latency, 0.25, '250 ms'),
  ],
)
def test_figures(function, value, text):
  assert function(value) == text


def made(place: Path, name: str, status: Status | None, **row: object) -> Path:
  run = place / 'runs' / name
  run.mkdir(parents=True)
  (run / 'config.json').write_text('{}')
  if status is not None:
    (run / 'status.json').write_text(to_json(status))
  if row:
    (run / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  return run


def test_all_runs(tmp_path):
  now = 5000.0
  fresh = dataclasses.replace(STATUS, time=now - 1)
  made(tmp_path, 'going', fresh, seconds=61.0, actor_steps=1200, learner_steps=3)
  for name, snapshots in (('killed', ['000003']), ('dead', ['.writing-000003'])):
    run = made(tmp_path, name, STATUS, seconds=5.0)
    for each in snapshots:
      (run / 'snapshots' / each).mkdir(parents=True)
  done = dataclasses.replace(STATUS, state='finished')
  made(tmp_path, 'done', done, seconds=9.0, **{'evaluator/return': 481.26})
  made(tmp_path, 'torn', None).joinpath('status.json').write_text('{"pro')
  for index, name in enumerate(('going', 'killed', 'dead', 'done', 'torn')):
    config = tmp_path / 'runs' / name / 'config.json'
    os.utime(config, (index, index))
  lines = shown(overview(str(tmp_path / 'runs'), now), width=140)
  assert [re.sub(r' {2,}', ' | ', line) for line in lines[1:]] == [
    'going | running | 1/3 | 0:01:01 | 1,200 | 3',
    'killed | lost, resumable | 0/3 | 0:00:05',
    'dead | lost | 0/3 | 0:00:05',
    'done | finished | 0/3 | 0:00:09 | 481.3',
    'torn | lost',
  ]


def test_the_command(shell: Shell):
  made(shell.place, 'mine', dataclasses.replace(STATUS, time=time.time()))
  code, out, err = shell.run('status')
  assert (code, err) == (0, '') and re.search(
    r'^ mine +running +1/3', out, re.MULTILINE
  )
  code, out, err = shell.run('status', 'mine')
  assert (code, err) == (0, '') and 'learner → replay' in out
  code, out, err = shell.run('status', '--help')
  assert (code, err) == (0, '') and out.startswith('usage: callsheet status ')


def test_refused(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert refusal(capsys, 'status').startswith(f'no runs in {tmp_path}/runs; `callshee')
  made(tmp_path, 'mine', STATUS)
  assert "did you mean 'mine'?" in refusal(capsys, 'status', 'runs/mime')
  assert refusal(capsys, 'top').startswith('expected one run, got nothing')
  assert 'needs a terminal; `callsheet status mine`' in refusal(capsys, 'top', 'mine')


class Screen:
  """`callsheet top` on a terminal of its own."""

  def __init__(self, place: Path) -> None:
    self._ours, theirs = pty.openpty()
    self.before = termios.tcgetattr(theirs)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 100, 0, 0))
    self._theirs, self.text = theirs, ''
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'callsheet.commands.main', 'top', 'mine'],
      cwd=place,
      env={**os.environ, 'TERM': 'xterm'},
      stdin=theirs,
      stdout=theirs,
      stderr=theirs,
    )

  def sees(self, text: str) -> bool:
    while select.select([self._ours], [], [], 0)[0]:
      self.text += os.read(self._ours, 1 << 16).decode(errors='replace')
    return text in self.text

  def press(self, key: str) -> None:
    os.write(self._ours, key.encode())

  def close(self) -> None:
    assert termios.tcgetattr(self._theirs) == self.before
    os.close(self._ours)
    os.close(self._theirs)


@pytest.mark.parametrize('how', ['q', 'Ctrl-C', 'the run ends'])
def test_top_is_left_and_leaves_the_terminal_as_it_was(tmp_path, how):
  run = made(tmp_path, 'mine', dataclasses.replace(STATUS, time=time.time()))
  screen = Screen(tmp_path)
  wait_for(lambda: screen.sees('learner → replay'))
  newer = (dataclasses.replace(NODES[0], waits=Waits('call', 'something new')),)
  (run / 'status.json').write_text(
    to_json(dataclasses.replace(STATUS, time=time.time(), nodes=newer))
  )
  wait_for(lambda: screen.sees('something new'))
  if how == 'q':
    screen.press('x')
    screen.press('q')
  elif how == 'Ctrl-C':
    screen.process.send_signal(signal.SIGINT)
  else:
    done = dataclasses.replace(STATUS, state='finished', time=time.time())
    (run / 'status.json').write_text(to_json(done))
  wait_for(lambda: screen.sees('\x1b[?1049l') and screen.process.poll() is not None, 60)
  assert screen.process.returncode == 0 and 'Traceback' not in screen.text
  if how == 'the run ends':
    assert re.search(r'finished\S* after \d', screen.text)
  screen.close()
