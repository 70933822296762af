"""A run that is killed, pre-empted or loses a node goes on: one count, one curve."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from callsheet.commands import snapshot_flags
from callsheet.errors import UsageError
from callsheet.nodes import snapshots
from tests.commands.conftest import Shell, end, refusal, wait_for
from tests.commands.test_run import ENDLESS, pids, rows, steps

pytestmark = pytest.mark.timeout(240)

COUNTS = ('seconds', 'actor_steps', 'episodes', 'learner_steps')


def taken(run: Path) -> list[Path]:
  return snapshots.numbered(run / 'snapshots')


def learnt(place: Path) -> int:
  """Updates in the state that a snapshot has."""
  return int(snapshots.read(place, '')['learner']['steps'])


def begun(run: Path) -> bool:
  """Whether the last two snapshots have some learning in them."""
  return len(taken(run)) >= 2 and all(learnt(place) for place in taken(run)[-2:])


def assert_one_curve(run: Path) -> list[dict[str, Any]]:
  """The rows; nothing that is counted went back."""
  shown: list[dict[str, Any]] = rows(run)
  for before, after in itertools.pairwise(shown):
    for name in COUNTS:
      assert after[name] >= before[name], (name, before, after)
  return shown


@pytest.mark.parametrize(
  ('first', 'second', 'damaged'),
  [('processes', 'threads', False), ('threads', 'processes', True)],
)
def test_killed_and_resumed_in_another_backend(
  shell: Shell, first: str, second: str, damaged: bool
):
  process = shell.start(
    'run',
    'dqn',
    f'--backend={first}',
    '--name=mine',
    '--snapshot_every=2s',
    '--seed=3',
    *ENDLESS,
  )
  run = shell.place / 'runs' / 'mine'
  wait_for(lambda: begun(run))
  process.send_signal(signal.SIGKILL)
  process.communicate()
  wait_for(lambda: not shell.processes())
  for left in (shell.place / 'tmp').iterdir():
    # Nobody was left to clear up what the one process of all threads had there.
    assert first == 'threads' and left.name.startswith('callsheet'), left
    for path in [*left.iterdir()]:
      path.unlink()
    left.rmdir()
  before = rows(run)
  newest = taken(run)[-1]
  had = {place.name: learnt(place) for place in taken(run)}
  if damaged:
    array = max(newest.rglob('learner/d/*'), key=lambda path: path.stat().st_size)
    data = bytearray(array.read_bytes())
    data[len(data) // 2] ^= 4
    array.write_bytes(data)

  # More than was counted behind the last row, and than the limiter gives unlearnt.
  budget = int(before[-1]['actor_steps']) + 20_000
  code, out, err = shell.run(
    'resume',
    'runs/mine',
    f'--backend={second}',
    '--num_actors=3',
    f'--max_actor_steps={budget}',
  )
  assert (code, err) == (0, ''), out
  assert f'as {second}, native replay' in out
  from_ = newest.name
  if damaged:
    assert f'snapshot {newest.name} is damaged (the checksum of learner/d/' in out
    assert (newest.parent / f'{newest.name}.damaged').is_dir()
    [from_] = re.findall(r'going back to (\d+)', out)
  assert f'goes on from snapshot {from_} of ' in out
  shown = assert_one_curve(run)
  assert shown[: len(before)] == before and len(shown) > len(before)
  assert shown[-1]['actor_steps'] >= budget
  assert shown[-1]['learner_steps'] > before[-1]['learner_steps']
  manifest = snapshots.read(taken(run)[-1])
  assert manifest['number'] > int(newest.name)
  # What was learnt is still there; what was lost since then counts, too.
  steps_now, version = manifest['learner']['steps'], manifest['learner']['version']
  assert had[from_] < steps_now <= version == manifest['counts']['learner_steps']
  lost = before[-1]['learner_steps'] - had[from_]
  assert version - steps_now >= lost
  config = json.loads((run / 'config.json').read_text())
  assert config['life'] == 1
  assert (config['flags']['seed'], config['flags']['num_actors']) == (3, 3)
  if second == 'processes':
    assert (run / 'logs' / 'actor-2.log').exists()


def test_terminated_it_says_that_it_can_be_resumed_and_export_plays(shell: Shell):
  process = shell.start('run', 'dqn', '--backend=threads', '--name=mine', *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  policy = run / 'checkpoint' / 'policy'
  wait_for(lambda: steps(run, 'learner_steps') > 0 and policy.exists())
  assert not taken(run)
  process.send_signal(signal.SIGTERM)
  code, out, err = end(process)
  assert (code, err) == (75, ''), out
  assert out.endswith('  go on: callsheet resume runs/mine\n')
  [last] = taken(run)
  counts = snapshots.read(last)['counts']
  assert 0 < counts['learner_steps'] <= steps(run, 'learner_steps')
  assert 0 < counts['actor_steps'] <= steps(run, 'actor_steps')

  code, out, err = shell.run('export', 'runs/mine', 'policy')
  assert (code, err) == (0, '')
  _, of_run, _ = shell.run('eval', 'runs/mine', '--num_episodes=3', '--seed=1')
  code, of_export, err = shell.run(
    'eval', 'policy', '--num_episodes=3', '--seed=1', '--video=episode.gif'
  )
  assert code == 0, err
  assert of_export.splitlines()[0] == of_run.strip()
  assert re.search(r'\na return of \d+\.0 in episode\.gif\n', of_export)
  assert (shell.place / 'episode.gif').read_bytes()[:3] == b'GIF'


def test_a_run_that_loses_its_nodes_goes_on(shell: Shell):
  """Each is killed in turn; what the learner had learnt since its snapshot is lost."""
  process = shell.start('run', 'dqn', '--name=mine', '--snapshot_every=2s', *ENDLESS)
  run = shell.place / 'runs' / 'mine'
  wait_for(lambda: begun(run))
  for node in ('learner', 'replay', 'counter', 'recorder', 'snapshotter'):
    os.kill(pids(run, node)[0], signal.SIGKILL)
    wait_for(lambda node=node: len(pids(run, node)) == 2)
    now = {name: steps(run, name) for name in ('actor_steps', 'learner_steps')}
    wait_for(
      lambda now=now: all(steps(run, name) > count for name, count in now.items())
    )
    number = int(taken(run)[-1].name)
    wait_for(lambda number=number: int(taken(run)[-1].name) > number)
  assert process.poll() is None
  process.send_signal(signal.SIGINT)
  code, out, err = end(process)
  assert (code, err) == (130, 'callsheet: interrupted\n'), out
  assert out.count('its process was killed by SIGKILL; restart 1 in') == 5
  assert 'Traceback' not in out
  for node in ('actor-0', 'actor-1', 'evaluator'):
    assert len(pids(run, node)) == 1, 'it waited for none of them'
  assert_one_curve(run)
  manifest = snapshots.read(taken(run)[-1])
  learnt = manifest['learner']
  assert 0 < learnt['steps'] < learnt['version'] == manifest['counts']['learner_steps']


def test_what_resume_refuses(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert 'is not the folder of a run' in refusal(capsys, 'resume', 'runs/none')
  assert 'expected one folder of a run' in refusal(capsys, 'resume')
  run = tmp_path / 'runs' / 'mine'
  run.mkdir(parents=True)
  saved = {
    'agent': 'dqn',
    'agent_config': {},
    'flags': {
      'env': 'CartPole-v1',
      'seed': 0,
      'replay': 'native',
      'backend': 'threads',
    },
  }
  (run / 'config.json').write_text(json.dumps(saved))
  said = refusal(capsys, 'resume', 'runs/mine')
  assert said.startswith(
    'there is no snapshot in runs/mine/snapshots: the run took none'
  )
  said = refusal(capsys, 'resume', 'runs/mine', '--seed=1')
  assert said.startswith('--seed is what this run is, it has 0')
  assert 'no flag --n_step' in refusal(capsys, 'resume', 'runs/mine', '--n_step=2')
  saved['flags']['lock_step'] = True
  (run / 'config.json').write_text(json.dumps(saved))
  assert 'lock-step takes no snapshots' in refusal(capsys, 'resume', 'runs/mine')
  assert {path.name for path in run.iterdir()} == {'config.json'}


@pytest.mark.parametrize(
  ('text', 'expected'),
  [('30s', 30), ('5m', 300), ('2h', 7200), ('1d', 86400), ('90', 90), ('1.5m', 90)],
)
def test_lengths_of_time(text, expected):
  assert snapshot_flags.seconds(text) == expected


@pytest.mark.parametrize('text', ['', 'm', '5 m', '0s', '-5m', '5min', 'always'])
def test_no_lengths_of_time(text):
  with pytest.raises(UsageError, match='--snapshot_every takes a time such as 30s'):
    snapshot_flags.seconds(text)


def test_no_snapshots_in_lock_step(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  said = refusal(capsys, 'run', 'dqn', '--lock_step', '--snapshot_every=1m')
  assert said.startswith('--snapshot_every has no meaning with --lock_step')
