"""What can't be done gets one line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import os

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from callsheet.agents import registry
from tests.commands.conftest import refusal

SPACES = {
  'Pixels-v0': spaces.Box(0, 255, (84, 84, 3), np.uint8),
  'Text-v0': spaces.Text(3),
  'Dict-v0': spaces.Dict({'eye': spaces.Box(0, 255, (9, 9, 3), np.uint8)}),
}


class Room(gymnasium.Env):
  def __init__(self, space, render_mode=None):
    self.observation_space, self.action_space = space, spaces.Discrete(2)


AGENTS = ', '.join(registry.names())


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name, space in SPACES.items():
    gymnasium.register(name, Room, kwargs={'space': space})
  yield tmp_path
  for name in SPACES:
    del gymnasium.registry[name]


@pytest.mark.parametrize(
  ('argv', 'expected'),
  [
    ('rnu', "no command 'rnu'; did you mean 'run'? there are: run, "),
    ('run', f'expected one agent ({AGENTS}), got nothing; right is: callsheet run '),
    ('run --n_step=3', f'expected one agent ({AGENTS}), got nothing; right is: '),
    ('run dqm', f"no agent 'dqm'; did you mean 'dqn'? there are: {AGENTS}"),
    ('run dqn extra', f'expected one agent ({AGENTS}), got dqn extra; right is: '),
    ('run dqn --backend=thread', "backend 'thread'; did you mean 'threads'? there "),
    ('run dqn --backend=moon', "no launch backend 'moon'; there are "),
    ('run dqn --env=CartPole-v9', "no environment 'CartPole-v9': did you mean "),
    ('run dqn --env=nowhere:A-v0', "'nowhere:A-v0': can't import 'nowhere': No mo"),
    ('run dqn --env=Pendulum-v1', 'Pendulum-v1: dqn: the action is BoundedArray(sh'),
    ('run dqn --env=Pixels-v0 --torso=mlp', 'Pixels-v0: dqn: the observation is Boun'),
    ('run dqn --env=Text-v0', 'Text-v0: the observation space is Text, expected Box'),
    ('run dqn --env=Dict-v0', "Dict-v0: dqn: the part 'eye' of the observation has "),
    ('run dqn --n_stepp=3', 'no flag --n_stepp; did you mean --n_step?'),
    ('run dqn --zzzzzzzzz', 'no flag --zzzzzzzzz; see --help'),
    ('run dqn --n_step=0', 'DQNConfig.n_step is 0, expected an integer of at least 1'),
    ('run --seed 3 --n_step=0 dqn', 'DQNConfig.n_step is 0, expected an integer of'),
    ('run dqn --n_step=none', "--n_step takes an integer, got 'none'"),
    ('run dqn --n_step=2.5', "--n_step takes an integer, got '2.5'"),
    ('run dqn --learning_rate=-1', 'DQNConfig.learning_rate is -1.0, expected a num'),
    ('run dqn --learning_rate=nan', 'DQNConfig.learning_rate is nan, expected a num'),
    ('run dqn --huber_delta=x', "--huber_delta takes a number or none, got 'x'"),
    ('run dqn --hidden_sizes=a,b', '--hidden_sizes takes integers with commas betw'),
    ('run dqn --hidden_sizes=0', 'DQNConfig.hidden_sizes is (0,), expected positive'),
    ('run dqn --double=maybe', "--double takes true or false, got 'maybe'"),
    ('run dqn --batch_size=99999999', 'DQNConfig.batch_size is 99999999, expected at'),
    ('run dqn --num_actors=zero', "--num_actors takes a positive integer, got 'zero'"),
    ('run dqn --num_actors=0', "--num_actors takes a positive integer, got '0'"),
    ('run sac --env=CartPole-v1', 'CartPole-v1: sac: the action is DiscreteArray(sh'),
    ('run dqn --debug --backend=processes', '--debug runs in threads, not with --ba'),
    ('run dqn --debug --num_actors=3', '--num_actors has no meaning with --lock_step'),
    ('run dqn --pdb --backend=ssh', '--pdb: nodes of the ssh backend may run on oth'),
    ('run dqn --lock_step --num_actors=3', '--num_actors has no meaning with --lock'),
    ('run dqn --inference=serve', "no inference 'serve'; did you mean 'server'? there"),
    (
      'run dqn --num_inference_servers=0',
      "--num_inference_servers takes a positive integer, got '0'",
    ),
    (
      'run dqn --num_inference_servers=2',
      'num_inference_servers is 2, but each actor runs the policy itself; leave it',
    ),
    (
      'run dqn --inference=server --num_inference_servers=3',
      'num_inference_servers is 3, expected 1 to num_actors, 2',
    ),
    (
      'run dqn --num_learner_hosts=2 --backend=threads',
      "--num_learner_hosts=2: the backend 'threads' has one process for all; take --ba",
    ),
    (
      'run dqn --num_learner_hosts=3',
      'num_learner_hosts is 3, by which the batches of ',
    ),
    ('run dqn --seed=-1', "--seed takes a non-negative integer, got '-1'"),
    ('run dqn --target_return=x', "--target_return takes a number, got 'x'"),
    ('run dqn --replay_port=70000', '--replay_port takes an integer in the range [1,'),
    ('run dqn --runs_directory=/proc/x', 'the run folder /proc/x/dqn-CartPole-v1-see'),
    ('run dqn --replay=natve', "no replay 'natve'; did you mean 'native'? there are n"),
    (
      'run dqn --replay=native --replay_port=4321',
      "--replay_port=4321 is Reverb's, the native replay has no port of its own; leave",
    ),
    (
      'run dqn --replay=native --max_replay_size=9000000000000',
      "table 'transitions' would take 445438.28 GiB (9000000000000 items",
    ),
    (
      'run dqn --replay=native --replay_directory=/proc/x',
      ' MiB (50000 items of 44 bytes), and 0.0 MiB are free in /proc/x; a max_size of',
    ),
    (
      'run dqn --replay=native --replay_directory=/proc/version/x',
      'no files can be made in /proc/version/x; name another columns_directory',
    ),
    (
      'run dqn --replay=reverb --replay_directory=x',
      "--replay_directory=x is the native replay's, Reverb's tables are in memory; l",
    ),
    ('eval', 'expected one folder of a run, got nothing; right is: callsheet eval '),
    ('eval nowhere', 'nowhere is not the folder of a run: its config.json can not be '),
    ('eval x --num_episodes=0', '--num_episodes takes a positive integer, got '),
  ],
)
def test_refused(capsys, place, argv, expected):
  assert expected in refusal(capsys, *argv.split())
  assert os.listdir(place) == []


def test_run_folder_that_exists(capsys, place):
  (place / 'runs' / 'mine').mkdir(parents=True)
  (place / 'runs' / 'mine' / 'kept').write_text('as it was')
  line = refusal(capsys, 'run', 'dqn', '--name=mine')
  assert line.endswith('runs/mine exists; take another --name, or remove it first')
  assert os.listdir(place / 'runs' / 'mine') == ['kept']


def test_run_folder_below_a_file(capsys, place):
  (place / 'file').write_text('')
  line = refusal(capsys, 'run', 'dqn', '--runs_directory=file', '--name=mine')
  assert 'file/mine can not be made (Not a directory); name a place that ' in line
  assert line.endswith('--runs_directory=DIRECTORY')


def test_run_folder_that_may_not_be_made(capsys, place, monkeypatch):
  def denied(path, *args, **kwargs):
    raise PermissionError(13, 'Permission denied', path)

  monkeypatch.setattr(os, 'mkdir', denied)
  line = refusal(capsys, 'run', 'dqn', '--name=mine')
  assert 'runs/mine can not be made (Permission denied); name a place that ' in line
  assert os.listdir(place) == []


@pytest.mark.parametrize('missing', ['dm-haiku', 'matplotlib'])
def test_a_package_that_is_missing(shell, missing):
  shell.hide(missing.removeprefix('dm-'))
  code, out, err = shell.run('run', 'dqn')
  assert (code, out) == (2, '')
  assert err.startswith('callsheet: not installed for this Python 3.')
  assert f'): {missing}; `make run` in a checkout sets up the whole set' in err
  assert err.count('\n') == 1
  assert sorted(os.listdir(shell.place)) == ['site', 'tmp']


def test_a_python_without_the_wheels_of_reverb(shell):
  shell.hide('reverb', 'tensorflow')
  code, out, err = shell.run('run', 'dqn', '--replay=reverb')
  assert (code, out) == (2, '')
  assert '): dm-reverb, tensorflow-cpu; take --replay=native, which needs none' in err
  assert err.endswith('`make run REPLAY=reverb PYTHON=3.10` in a checkout\n')
  assert err.count('\n') == 1
  assert sorted(os.listdir(shell.place)) == ['site', 'tmp']


def written(place, **config):
  (place / 'config.json').write_text(json.dumps(config))
  return str(place)


def test_playing_what_no_run_wrote(capsys, place):
  assert 'its config.json is none of' in refusal(capsys, 'eval', written(place, a=1))


def test_playing_a_run_without_a_policy(capsys, place):
  folder = written(place, agent='dqn', agent_config={}, flags={'env': 'CartPole-v1'})
  assert 'there is no checkpoint at' in refusal(capsys, 'eval', folder)


def test_playing_a_run_of_another_version(capsys, place):
  folder = written(
    place, agent='dqn', agent_config={'gone': 1}, flags={'env': 'CartPole-v1'}
  )
  line = refusal(capsys, 'eval', folder)
  assert 'was written by another version of DQNConfig' in line and "'gone'" in line
