"""`callsheet logs`: whose, from where on, and until when."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from callsheet.commands import log_files, logs, runs
from callsheet.commands.log_files import Tail
from callsheet.launch.observe.document import NodeStatus, Status, to_json
from tests.commands.conftest import Shell, end, refusal, wait_for
from tests.commands.test_run import ENDLESS, pids, steps

pytestmark = pytest.mark.timeout(180)


def made(place: Path, state: str = 'finished', **text: str) -> Path:
  """A run's folder with these logs; '_' stands for '-'."""
  run = place / 'runs' / 'mine'
  (run / 'logs').mkdir(parents=True)
  (run / 'config.json').write_text('{}')
  for name, content in text.items():
    (run / 'logs' / f'{name.replace("_", "-")}.log').write_text(content)
  write_status(run, state)
  return run


def write_status(run: Path, state: str, now: float | None = None) -> None:
  nodes = [
    NodeStatus('learner', unit='learner', log='/elsewhere/logs/learner.log'),
    NodeStatus('actor/0', unit='actor/0', log='/elsewhere/logs/actor-0.log'),
    NodeStatus('actor/1', unit='actor/1', log='/elsewhere/logs/actor-1.log'),
    NodeStatus('relay/0', unit='relay', log='/elsewhere/logs/relay.log'),
  ]
  status = Status('p', state=state, time=now or time.time(), nodes=tuple(nodes))
  (run / 'status.json.new').write_text(to_json(status))
  os.replace(run / 'status.json.new', run / 'status.json')


# Which files.


@pytest.mark.parametrize(
  ('node', 'expected'),
  [
    ('learner', ['learner']),
    ('actor/0', ['actor/0']),
    ('actor-1', ['actor/1']),
    ('actor', ['actor/0', 'actor/1']),
    ('relay/0', ['relay']),  # Several nodes share its process.
    ('act', []),
  ],
)
def test_files_of_a_node(tmp_path, node, expected):
  run = made(tmp_path, learner='', actor_0='', actor_1='', relay='')
  status = runs.status(str(run))
  found = log_files.files(str(run), log_files.names_of(status))
  assert [f.name for f in log_files.of_node(found, node, status)] == expected


def test_files_of_a_node_where_no_status_tells_them(tmp_path):
  run = made(tmp_path, learner='', actor_0='', actor_1='')
  found = log_files.files(str(run), {})
  for node, expected in (
    ('actor/0', ['actor-0']),
    ('actor', ['actor-0', 'actor-1']),
    ('learner', ['learner']),
  ):
    assert [f.name for f in log_files.of_node(found, node, None)] == expected


# What is new in one.


def test_tail_gives_each_line_once_it_is_whole(tmp_path):
  path = tmp_path / 'a.log'
  tail = Tail(str(path))
  assert tail.read() == []
  with open(path, 'ab', buffering=0) as file:
    file.write(b'one\ntw')
    assert tail.read() == ['one']
    file.write('o\nü'.encode()[:-1])
    assert tail.read() == ['two']
    file.write('ü'.encode()[1:] + b'\n\xff\nend')
    assert tail.read() == ['ü', '�']
  assert (tail.half(), tail.half(), tail.read()) == (['end'], [], [])
  tail.close()


@pytest.mark.parametrize(
  ('last', 'expected'), [(2, ['2', '3']), (0, []), (9, [*'0123'])]
)
def test_tail_from_the_last_lines_on(tmp_path, last, expected):
  path = tmp_path / 'a.log'
  path.write_text('0\n1\n2\n3\n')
  tail = Tail(str(path), last)
  assert tail.read() == expected
  with open(path, 'a') as file:
    file.write('new\n')
  assert tail.read() == ['new']
  tail.close()


def test_tail_survives_rotation_and_cutting(tmp_path):
  path = tmp_path / 'a.log'
  path.write_text('one\n')
  tail = Tail(str(path))
  assert tail.read() == ['one']
  with open(path, 'a') as file:
    file.write('two\nhalf')
  os.rename(path, tmp_path / 'a.log.1')
  assert tail.read() == ['two']  # It is away: a moment later there is another.
  path.write_text('three\n')
  assert tail.read() == ['half', 'three']
  with open(path, 'w') as file:
    file.write('4\n')
  assert tail.read() == ['4']
  tail.close()


# The command.


def test_logs_of_one_and_of_all(shell: Shell):
  made(shell.place, learner='\x1b[1mloud\x1b[0m\n', actor_0='a\nb\nc', actor_1='d\n')
  assert shell.run('logs', 'runs/mine', 'learner') == (0, '\x1b[1mloud\x1b[0m\n', '')
  assert shell.run('logs', 'mine', 'actor', '-n', '2') == (
    0,
    'actor/0 | b\nactor/0 | c\nactor/1 | d\n',
    '',
  )
  code, out, err = shell.run('logs', 'mine', '-f')  # It is over: nothing to wait for.
  assert (code, err) == (0, '')
  assert out.splitlines()[-1] == 'learner | loud' and out.count('\n') == 5


def test_following_ends_with_the_run_and_sees_what_comes_up(tmp_path, capsys):
  run = made(tmp_path, 'running', learner='old\n' * 20)
  over = threading.Event()
  chosen = logs.Chosen(str(run), None)
  thread = threading.Thread(
    target=logs.follow, args=(chosen, 3, over.is_set), kwargs={'tick': 0.01}
  )
  thread.start()
  shown = ''

  def seen(text: str) -> bool:
    nonlocal shown
    shown += capsys.readouterr().out
    return text in shown

  wait_for(lambda: seen('learner | old\n' * 3))
  (run / 'logs' / 'actor-0.log').write_text('first\nsecond\nlast')
  wait_for(lambda: seen('actor/0 | second\n'))
  over.set()
  thread.join(30)
  assert seen('actor/0 | last\n')
  assert shown.count('old') == 3 and shown.count('first') == 1


@pytest.mark.parametrize('state', ['finished', 'lost'])
def test_following_ends_when_the_status_says_so(shell: Shell, state: str):
  run = made(shell.place, 'running', learner='here\n')
  process = shell.start('logs', 'mine', 'learner', '-f')
  assert process.stdout is not None and process.stdout.readline() == 'here\n'
  assert process.poll() is None
  if state == 'lost':  # Its launcher was killed a while ago.
    write_status(run, 'running', time.time() - 100)
  else:
    write_status(run, state)
  code, out, err = end(process)
  assert (code, out, err) == (0, '', '')


def test_ctrl_c_is_a_good_end_and_restarts_are_followed(shell: Shell):
  running = shell.start('run', 'dqn', '--name=mine', *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  wait_for(lambda: steps(run, 'learner_steps') > 0)
  follower = shell.start('logs', 'mine', 'actor', '-f')
  assert follower.stdout is not None
  assert ' starts' in follower.stdout.readline()
  os.kill(pids(run, 'actor-0')[0], signal.SIGKILL)
  assert any('killed by SIGKILL' in line for line in follower.stdout)
  assert any(line.endswith(' starts\n') for line in follower.stdout)
  follower.send_signal(signal.SIGINT)
  code, _, err = end(follower)
  assert (code, err) == (0, '')
  other = shell.start('logs', 'mine', 'learner', '-f')
  running.send_signal(signal.SIGINT)
  assert end(running)[0] == 130
  code, out, err = end(other)
  assert (code, err) == (0, '') and 'has ended' in out


def test_a_reader_that_leaves_ends_it(shell: Shell):
  made(shell.place, 'running', learner='x\n' * 100)
  process = shell.start('logs', 'mine', '-f')
  assert process.stdout is not None and process.stderr is not None
  process.stdout.readline()
  process.stdout.close()
  with open(shell.place / 'runs' / 'mine' / 'logs' / 'learner.log', 'a') as file:
    file.write('more\n')
  assert process.stderr.read() == ''
  assert process.wait(60) == 1


def test_refused(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  made(tmp_path, learner='')
  assert refusal(capsys, 'logs').startswith('expected a run, and maybe a node, got no')
  assert "no run 'mime': did you mean 'mine'?" in refusal(capsys, 'logs', 'mime')
  line = refusal(capsys, 'logs', 'mine', 'lerner')
  assert line.startswith("no log of 'lerner'; did you mean 'learner'? there are: ")


# How runs stand.


def test_how_a_run_stands(tmp_path):
  run = made(tmp_path, 'running')
  began = os.path.getmtime(run / 'config.json')
  status = runs.status(str(run))
  assert status is not None
  at = status.time
  assert runs.state(str(run), status, at + 1) == 'running'
  assert runs.state(str(run), status, at + 60) == 'lost'
  assert runs.state(str(run), None, began + 1) == 'starting'
  assert runs.state(str(run), None, began + 3600) == 'lost'
  for state in ('finished', 'failed', 'interrupted'):
    write_status(run, state)
    assert runs.state(str(run), runs.status(str(run)), at + 1e6) == state
  assert runs.is_over(str(run)) and runs.is_over(str(tmp_path / 'gone'))


def test_the_last_row_is_the_last_whole_one(tmp_path):
  assert runs.last_row(str(tmp_path)) == {}
  rows = [{'seconds': index, 'text': 'x' * 3000} for index in range(50)]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text + '{"seconds": 50')
  assert runs.last_row(str(tmp_path)) == rows[-1]
