"""From a run's replay, kept, to a run that learns from it; and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.commands.conftest import Shell, refusal

pytestmark = pytest.mark.timeout(300)

SMALL = ('--target_return=1e9', '--num_episodes=2', '--hidden_sizes=8,8')
PNG = b'\x89PNG'


def write_pendulum(path, **others):
  """A file of fifty transitions that Pendulum-v1 could have shown."""
  generator = np.random.default_rng(0)
  observation = generator.normal(size=(50, 3))
  columns = {
    'observation': observation,
    'action': generator.uniform(-2, 2, (50, 1)),
    'reward': generator.normal(size=50),
    'terminal': np.zeros(50, bool),
    'next_observation': observation,
  }
  np.savez(path, **{**columns, **others})


def rows(run):
  return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def test_a_run_and_one_that_learns_from_it(shell: Shell):
  code, out, err = shell.run(
    'run',
    'dqn',
    '--backend=processes',
    '--replay_checkpoint',
    '--name=online',
    '--max_actor_steps=4000',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  code, out, err = shell.run(
    'run',
    'bc',
    '--backend=threads',
    '--dataset=runs/online',
    '--name=offline',
    '--max_learner_steps=400',
    '--batch_size=32',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  run = shell.place / 'runs' / 'offline'
  first = out.splitlines()[0]
  found = re.fullmatch(
    r'bc on CartPole-v1, seed 0, as threads, ([\d,]+) transitions of runs/online: '
    r'runs/offline',
    first,
  )
  assert found, first
  last = rows(run)[-1]
  kept = rows(shell.place / 'runs' / 'online')[-1]['replay_size']
  assert last['replay_size'] == int(found[1].replace(',', '')) == kept
  assert (last['learner_steps'], last['actor_steps']) == (400, 0)
  assert last['evaluator/learner_steps'] == 400
  assert re.search(r'\n  400 learner steps \(.*\) in \d+ s, from a dataset\n', out)
  assert (run / 'curve.png').read_bytes()[:4] == PNG
  config = json.loads((run / 'config.json').read_text())
  assert config['flags']['dataset'] == 'runs/online'
  assert 'num_actors' not in config['flags']


def test_statistics_of_a_file_are_in_the_config_and_it_plays(shell: Shell):
  write_pendulum(shell.place / 'data.npz')
  code, out, err = shell.run(
    'run',
    'td3_bc',
    '--env=Pendulum-v1',
    '--backend=processes',
    '--dataset=data.npz',
    '--name=mine',
    '--max_learner_steps=64',
    *SMALL,
  )
  assert (code, err) == (0, ''), out
  run = shell.place / 'runs' / 'mine'
  config = json.loads((run / 'config.json').read_text())['agent_config']
  with np.load(shell.place / 'data.npz') as file:
    observation = file['observation']
  np.testing.assert_allclose(config['observation_mean'], observation.mean(0), atol=1e-5)
  std = observation.std(0) + 1e-3
  np.testing.assert_allclose(config['observation_std'], std, rtol=1e-5)
  code, out, err = shell.run('eval', 'runs/mine', '--num_episodes=2')
  assert (code, err) == (0, '')
  assert out.startswith('td3_bc on Pendulum-v1: mean return -')


@pytest.fixture
def place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_pendulum('data.npz')
  return tmp_path


@pytest.mark.parametrize(
  ('argv', 'expected'),
  [
    (
      'run bc',
      'bc learns from a dataset: --dataset=runs/NAME of a run that was made w',
    ),
    (
      'run dqn --dataset=data.npz',
      '--dataset: dqn learns from what its actors do, not from a dataset; leave it out',
    ),
    (
      'run dqn --max_learner_steps=5',
      '--max_learner_steps: dqn learns from what its actors do, not from a dataset; le',
    ),
    (
      'run bc --dataset=data.npz --num_actors=3',
      '--num_actors: bc learns from a dataset, and nobody acts; leave it out, or take ',
    ),
    ('run bc --dataset=nowhere', "no dataset 'nowhere'; expected the folder of a run "),
    (
      'run bc --dataset=data.npz',
      "dataset 'data.npz': column 'observation' expected float32 [4] a row, as the env",
    ),
    (
      'run td3_bc --env=CartPole-v1 --dataset=data.npz',
      'CartPole-v1: td3_bc: the action is DiscreteArray(shape=(), dtype=int32), expect',
    ),
    (
      'run dqn --replay=reverb --replay_checkpoint',
      "--replay_checkpoint is the native replay's, which alone is read as a dataset; l",
    ),
    (
      'run bc --env=Pendulum-v1 --dataset=data.npz --num_learner_hosts=3',
      'num_learner_hosts is 3, expected a divisor of the batches of 256 that ',
    ),
    (
      'run bc --dataset=data.npz --max_learner_steps=0',
      '--max_learner_steps takes a p',
    ),
  ],
)
def test_refused(capsys, place, argv, expected):
  assert refusal(capsys, *argv.split()).startswith(expected)
  assert [each.name for each in place.iterdir()] == ['data.npz']


def test_nan_in_a_dataset(capsys, place):
  write_pendulum('data.npz', reward=np.full(50, np.nan))
  line = refusal(capsys, 'run', 'iql', '--env=Pendulum-v1', '--dataset=data.npz')
  assert line.startswith("dataset 'data.npz': column 'reward' holds nan in row 0, exp")
