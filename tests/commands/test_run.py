"""The main job, small: what a run leaves, and how it ends when it is disturbed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.commands.conftest import REVERB, Shell, end, wait_for

pytestmark = pytest.mark.timeout(180)

SMALL = ('--target_return=1e9', '--num_episodes=2', '--hidden_sizes=8,8')
ENDLESS = (*SMALL, '--max_actor_steps=1000000000')
NODES = {
  'actor-0',
  'actor-1',
  'counter',
  'evaluator',
  'learner',
  'recorder',
  'replay',
  'snapshotter',
}
PNG = b'\x89PNG'


def rows(run: Path) -> list[dict[str, object]]:
  """The rows of the metrics; a last one that is being written is left out."""
  try:
    text = (run / 'metrics.jsonl').read_text()
  except FileNotFoundError:
    return []
  return [json.loads(line) for line in text.splitlines(keepends=True) if '\n' in line]


def steps(run: Path, name: str) -> int:
  return max((int(row.get(name) or 0) for row in rows(run)), default=0)


def pids(run: Path, node: str) -> list[int]:
  """The processes that a node has had, by its log."""
  log = (run / 'logs' / f'{node}.log').read_text()
  return [int(pid) for pid in re.findall(r'process (\d+) starts', log)]


def test_in_lock_step_a_run_can_be_repeated(shell: Shell):
  ends = []
  for name in ('once', 'again'):
    code, out, err = shell.run(
      'run',
      'dqn',
      '--lock_step',
      '--backend=threads',
      f'--name={name}',
      '--max_actor_steps=3000',
      *SMALL,
    )
    assert code == 0, err
    assert 'native replay, in lock-step' in out
    last = rows(shell.place / 'runs' / name)[-1]
    assert last['learner_steps'] > 0
    names = ('actor_steps', 'episodes', 'learner_steps', 'learner/loss')
    ends.append([last[each] for each in (*names, 'evaluator/return')])
  assert ends[0] == ends[1]


@pytest.mark.parametrize(
  ('backend', 'replay'),
  [
    (backend, replay)
    for replay in (['native', 'reverb'] if REVERB else ['native'])
    for backend in ('processes', 'threads')
  ],
)
def test_what_a_run_leaves(shell: Shell, backend: str, replay: str):
  code, out, err = shell.run(
    'run',
    'dqn',
    f'--backend={backend}',
    f'--replay={replay}',
    '--name=mine',
    '--n_step=2',
    '--max_actor_steps=4000',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  run = shell.place / 'runs' / 'mine'
  lines = out.splitlines()
  assert re.fullmatch(
    rf'dqn on CartPole-v1, seed 0, as {backend}, {replay} replay '
    r'\((up to )?\d+\.\d MiB of memory.*\): runs/mine',
    lines[0],
  )
  assert re.fullmatch(
    r'not solved: mean return .* \(best .*\), target 1e\+09', lines[-4]
  )
  assert 'environment steps (' in lines[-3] and 'samples per insert' in lines[-3]
  assert lines[-2].endswith(': runs/mine')
  assert lines[-1] == '  play it: callsheet eval runs/mine'

  config = json.loads((run / 'config.json').read_text())
  assert config['agent_config']['n_step'] == 2
  assert config['agent_config']['hidden_sizes'] == [8, 8]
  assert config['flags']['backend'] == backend
  assert config['flags']['replay'] == replay
  assert {'jax', 'callsheet', 'gymnasium'} <= set(config['versions'])
  assert steps(run, 'actor_steps') >= 2000
  assert steps(run, 'learner_steps') > 0
  with open(run / 'metrics.csv') as table:
    recorded = list(csv.DictReader(table))
  assert len(recorded) == len(rows(run))
  assert int(recorded[-1]['actor_steps']) == steps(run, 'actor_steps')
  assert (run / 'curve.png').read_bytes()[:4] == PNG
  assert {log.stem for log in (run / 'logs').iterdir()} == NODES
  if backend == 'processes':
    assert all(len(pids(run, node)) == 1 for node in NODES)

  code, out, err = shell.run('eval', 'runs/mine', '--num_episodes=3')
  assert (code, err) == (0, '')
  assert re.match(r'dqn on CartPole-v1: mean return \d.* over 3 episodes \(std', out)


def test_the_native_replay_runs_without_reverb_and_tensorflow(shell: Shell):
  shell.hide('reverb', 'tensorflow', 'launchpad')
  code, out, err = shell.run(
    'run',
    'dqn',
    '--replay=native',
    '--replay_directory=columns',
    '--name=mine',
    '--max_actor_steps=4000',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  assert re.search(r'of memory, \d+\.\d MiB in .*/columns\): runs/mine', out)
  assert os.listdir(shell.place / 'columns') == []
  run = shell.place / 'runs' / 'mine'
  assert steps(run, 'learner_steps') > 0
  last = rows(run)[-1]
  assert last['samples_per_insert'] and last['replay_size']


@pytest.mark.parametrize('backend', ['processes', 'threads'])
def test_ctrl_c(shell: Shell, backend: str):
  process = shell.start('run', 'dqn', f'--backend={backend}', '--name=mine', *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  policy = run / 'checkpoint' / 'policy'
  wait_for(lambda: policy.exists() and steps(run, 'learner_steps') > 0)
  process.send_signal(signal.SIGINT)
  code, out, err = end(process)
  assert (code, err) == (130, 'callsheet: interrupted\n'), out
  assert 'dqn | stopping in order; Ctrl-C again stops at once\n' in out
  assert 'did not stop' not in out and 'Traceback' not in out
  assert '\nnot solved: ' in out and 'play it: callsheet eval runs/mine' in out
  assert (run / 'checkpoint' / 'learner').is_dir()
  assert (run / 'curve.png').read_bytes()[:4] == PNG


def test_ctrl_c_before_it_began_leaves_nothing(shell: Shell):
  process = shell.start('run', 'dqn', '--name=mine', *ENDLESS)
  wait_for((shell.place / 'runs' / 'mine' / 'logs' / 'counter.log').exists)
  process.send_signal(signal.SIGINT)
  code, out, err = end(process)
  assert (code, err) == (130, 'callsheet: interrupted\n'), out
  assert os.listdir(shell.place) == ['tmp']


def test_an_actor_is_restarted_and_without_its_learner_the_run_fails(shell: Shell):
  process = shell.start('run', 'dqn', '--name=mine', '--snapshot_every=none', *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  wait_for(lambda: steps(run, 'learner_steps') > 0)
  os.kill(pids(run, 'actor-0')[0], signal.SIGKILL)
  wait_for(lambda: len(pids(run, 'actor-0')) == 2)
  before = steps(run, 'actor_steps')
  wait_for(lambda: steps(run, 'actor_steps') > before + 500)
  log = (run / 'logs' / 'actor-0.log').read_text()
  assert '] its process was killed by SIGKILL\n' in log
  assert process.poll() is None

  os.kill(pids(run, 'learner')[0], signal.SIGKILL)
  code, out, err = end(process)
  assert code == 1, out
  assert err.splitlines() == [
    "callsheet: node 'learner' failed: its process was killed by SIGKILL",
    f'Its log: {run}/logs/learner.log',
  ]
  assert 'actor/0 | its process was killed by SIGKILL; restart 1 in 1.0 s\n' in out
  assert 'Traceback' not in out
  assert '\nnot solved: ' in out
  assert (run / 'curve.png').read_bytes()[:4] == PNG
