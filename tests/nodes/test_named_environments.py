"""Environments by name: one law for every family, and what is said of a wrong name."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from callsheet.errors import UsageError
from callsheet.nodes import environment_families
from callsheet.nodes.environment_families import FAMILIES, family_of
from callsheet.nodes.named_environments import make_named, target_return
from tests.nodes.environment_law import LAST, check_law, column, play

LABMAZE = sys.version_info < (3, 13)
ENVPOOL = sys.version_info < (3, 12)
# With a number of steps in which episodes end.
EXAMPLES = {
  'CartPole-v1': 60,
  'MaskedCartPole-v1': 60,
  'LunarLander-v3': 150,
  'Hopper-v5': 150,
  'ALE/Breakout-v5': 220,
  'MinAtar/Breakout-v1': 60,
  'MinAtar/SpaceInvaders-v0': 150,
  'bsuite/memory_len/0': 9,
  'bsuite/deep_sea_stochastic/3': 40,
  'bsuite/catch/2': 30,
  'bsuite/umbrella_length/2': 30,
  'Blackjack-v1': 12,
}
EXAMPLES |= {'dm_control/cartpole-swingup': 30} if LABMAZE else {}
EXAMPLES |= (
  {
    'envpool/CartPole-v1': 60,
    'envpool/Pendulum-v1': 410,
    'envpool/Breakout-v5': 220,
    'envpool/Taxi-v3': 410,
    'envpool/HopperHop-v1': 30,
    'envpool/CoinrunEasy-v0': 30,
  }
  if ENVPOOL
  else {}
)

# An episode of theirs has a thousand steps.
ENDLESS = ('dm_control', 'envpool/HopperHop', 'envpool/Coinrun')


@contextlib.contextmanager
def made(name, count=2, seed=0, **options):
  with contextlib.closing(make_named(name, **options)(count, seed)) as environment:
    yield environment


def played(name, steps, seed=0, **options):
  with made(name, seed=seed, **options) as environment:
    return play(environment, steps)


@pytest.mark.parametrize('name', EXAMPLES)
def test_the_law_of_time_steps(name):
  with made(name) as environment:
    time_steps = play(environment, EXAMPLES[name])
    check_law(environment, time_steps)
  ended = (column(time_steps, 'step_type') == LAST).sum()
  assert ended > 0 or name.startswith(ENDLESS)


@pytest.mark.parametrize('name', EXAMPLES)
def test_a_seed_says_it_all(name):
  steps = min(EXAMPLES[name], 40)

  def seen(seed):
    time_steps = played(name, steps, seed)
    return [column(time_steps, each) for each in ('observation', 'reward')]

  once, again, other = seen(5), seen(5), seen(6)
  for a, b in zip(once, again, strict=True):
    np.testing.assert_array_equal(a, b)
  assert any((a != b).any() for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize('name', EXAMPLES)
def test_environments_of_a_batch_differ(name):
  # Games of Atari begin alike, until an action sticks.
  observations = column(played(name, 40), 'observation')
  assert (observations[:, 0] != observations[:, 1]).any()


def test_dm_control_is_among_them_where_it_can_be():
  assert (importlib.util.find_spec('dm_control') is not None) == LABMAZE


@pytest.mark.parametrize('name', EXAMPLES)
def test_factories_travel(name):
  maker = make_named(name, evaluation=True)
  assert pickle.loads(pickle.dumps(maker)) == maker


def test_other_processes_make_them():
  """Spawned ones, which have imported nothing yet; and none imports TensorFlow."""
  names = ['MaskedCartPole-v1', 'ALE/Pong-v5', 'MinAtar/Freeway-v1', 'bsuite/catch/0']
  names += ['dm_control/cartpole-balance'] if LABMAZE else []
  script = (
    'import pickle, sys\n'
    'for maker in pickle.load(sys.stdin.buffer):\n'
    '  environment = maker(1, 0)\n'
    '  environment.reset()\n'
    '  environment.close()\n'
    "print(sorted({'tensorflow', 'jax', 'seaborn'} & set(sys.modules)))\n"
  )
  ended = subprocess.run(
    [sys.executable, '-c', script],
    input=pickle.dumps([make_named(name) for name in names]),
    capture_output=True,
    timeout=100,
    # A renderer that nobody has.
    env={**os.environ, 'MUJOCO_GL': 'nothing' if LABMAZE else 'egl'},
  )
  assert (ended.returncode, ended.stdout) == (0, b'[]\n'), ended.stderr.decode()


# One family each.


def test_masked_cartpole_is_cartpole_without_velocities():
  masked, whole = played('MaskedCartPole-v1', 50), played('CartPole-v1', 50)
  np.testing.assert_array_equal(
    column(masked, 'observation'), column(whole, 'observation')[..., [0, 2]]
  )
  np.testing.assert_array_equal(column(masked, 'reward'), column(whole, 'reward'))
  single = played('MaskedCartPole-v1', 50, vectorization_mode='sync')
  assert column(single, 'observation').shape == (51, 2, 2)


def test_minatar_is_cut_off_after_its_limit():
  # Whoever stands still in Freeway goes on for 2500 steps.
  with made('MinAtar/Freeway-v1', max_episode_steps=50) as environment:
    time_steps = play(
      environment, 120, choose=lambda spec, count, rng: np.zeros(count, np.int32)
    )
  types = column(time_steps, 'step_type')
  assert np.nonzero((types == LAST).all(axis=1))[0].tolist() == [50, 101]
  assert (time_steps[50].discount == 1).all()


@pytest.mark.parametrize(('sticky', 'same'), [(0, True), (0.9, False)])
def test_minatar_actions_stick(sticky, same):
  """Wherever the ball is, the paddle moves as it is told unless an action stuck."""

  def paddles(seed):
    with made('MinAtar/Breakout-v1', seed=seed, sticky_action_prob=sticky) as games:
      time_steps = play(games, 5)  # No episode is as short as that.
    return column(time_steps, 'observation')[..., 0]

  assert (paddles(0) == paddles(1)).all() == same


@pytest.mark.skipif(not LABMAZE, reason='labmaze has no wheel for Python 3.13')
def test_dm_control_shows_positions_and_velocities_in_one_vector():
  from dm_control import suite

  from callsheet.agents.observations import unpack

  with made('dm_control/cartpole-swingup', seed=3, time_limit=0.5) as environment:
    time_steps = play(environment, 60)
    check_law(environment, time_steps)
    spec = environment.spec()
  types = column(time_steps, 'step_type')
  assert np.nonzero((types == LAST).all(axis=1))[0].tolist() == [50]
  assert (time_steps[50].discount == 1).all()
  parts = unpack(spec.observation, time_steps[0].observation)
  assert {name: part.shape for name, part in parts.items()} == {
    'position': (2, 3),
    'velocity': (2, 2),
  }
  with made('dm_control/cartpole-swingup', time_limit=0.5, action_repeat=4) as few:
    types = column(play(few, 20), 'step_type')
  assert np.nonzero((types == LAST).all(axis=1))[0].tolist() == [13]
  seed = int(np.random.SeedSequence(3).generate_state(1)[0])
  alone = suite.load('cartpole', 'swingup', {'random': seed}).reset().observation
  np.testing.assert_allclose(parts['position'][0], alone['position'], rtol=1e-6)


def test_memory_len_rewards_who_remembers():
  with made('bsuite/memory_len/1', count=8) as environment:
    time_step = environment.reset()
    context, returns = time_step.observation[:, 2], np.zeros(8)
    while (time_step.step_type != LAST).all():
      time_step = environment.step((context > 0).astype(np.int32))
      returns += time_step.reward
  assert set(np.abs(context)) == {1}
  assert returns.tolist() == [1] * 8


# Names.


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('CartPoll-v1', "no environment 'CartPoll-v1': did you mean .*CartPole-v1"),
    ('Pong-v9', 'did you mean ALE/Pong-v5'),
    ('Hoppr-v5', 'did you mean Hopper-v5'),
    ('ALE/Pog-v5', 'did you mean ALE/Pong-v5'),
    ('MinAtar/Breakot-v1', 'did you mean MinAtar/Breakout-v1'),
    ('bsuite/memory_len/99', 'did you mean bsuite/memory_len/9'),
    ('bsuite/memory', 'did you mean bsuite/memory_len/'),
    ('qqqqqqqq', "'qqqqqqqq': `callsheet envs` has all"),
    ('no_such_module:Thing-v0', "can't import 'no_such_module'"),
  ],
)
def test_an_unknown_name_is_answered_with_those_like_it(name, message):
  with pytest.raises(UsageError, match=message) as caught:
    make_named(name)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('ALE/Pong-v5', {'reward_cliping': False}, 'did you mean reward_clipping?'),
    ('ALE/Pong-v5', {'env_id': 'x'}, "no option 'env_id'; it has repeat_action_prob"),
    ('ALE/Pong-v5', {'frame_skip': 0}, 'ALE/Pong-v5: frame_skip is 0, expected at l'),
    ('ALE/Pong-v5', {'repeat_action_probability': 1}, 'is 1, expected at least 0 and'),
    ('MinAtar/Breakout-v1', {'stacked': 4}, "no option 'stacked'; it has sticky_act"),
    ('bsuite/catch/0', {'rows': 4}, "bsuite/catch/0 has no option 'rows'; it has none"),
  ],
)
def test_an_unknown_option_is_answered_with_those_there_are(name, options, message):
  with pytest.raises(UsageError, match=message):
    make_named(name, **options)


def test_an_option_that_gymnasium_does_not_know_names_the_call():
  maker = make_named('CartPole-v1', gravity=1)
  with pytest.raises(UsageError, match=r"make_gymnasium\('CartPole-v1', gravity=1\)"):
    maker(1, 0)


@pytest.mark.parametrize(
  ('name', 'module', 'extra'),
  [
    ('LunarLander-v3', 'Box2D', 'box2d'),
    ('Hopper-v5', 'mujoco', 'mujoco'),
    ('ALE/Pong-v5', 'ale_py', 'atari'),
    ('MinAtar/Breakout-v1', 'minatar', 'minatar'),
    ('dm_control/walker-walk', 'dm_control', 'dm_control'),
    ('bsuite/catch/0', 'bsuite', 'bsuite'),
    ('envpool/Pong-v5', 'envpool', 'envpool'),
  ],
)
def test_a_missing_extra_names_the_command(name, module, extra, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda each: None if each == module else find(each)
  )
  with pytest.raises(UsageError) as caught:
    make_named(name)
  line = str(caught.value)
  assert line.startswith(f'{name} needs {family_of(name).distribution}: ')
  assert line.endswith(f'pip install "callsheet[{extra}]"')
  assert family_of(name).names() == []


def test_dm_control_names_the_pythons_that_it_is_for(monkeypatch):
  monkeypatch.setattr(sys, 'version_info', (3, 13, 0, 'final', 0))
  family = family_of('dm_control/walker-walk')
  assert family.way_out().startswith('labmaze, which it needs, has no wheel for ')
  assert 'take Python 3.10 to 3.12 and pip install' in family.way_out()
  monkeypatch.setattr(sys, 'version_info', (3, 12, 9, 'final', 0))
  assert family.way_out() == 'pip install "callsheet[dm_control]"'
  assert 'take Python 3.10 to 3.11 and' in family_of('envpool/Pong-v5').way_out()


@pytest.mark.skipif(not ENVPOOL, reason='envpool has no wheel past Python 3.11')
def test_envpool_shows_pictures_as_networks_want_them():
  shapes = {
    name: played(f'envpool/{name}', 3)[-1].observation.shape
    for name in ('Breakout-v5', 'CoinrunEasy-v0')
  }
  assert shapes == {'Breakout-v5': (2, 84, 84, 4), 'CoinrunEasy-v0': (2, 64, 64, 3)}


@pytest.mark.skipif(not ENVPOOL, reason='envpool has no wheel past Python 3.11')
def test_envpool_cuts_off_without_a_termination():
  time_steps = played('envpool/Pendulum-v1', 210, max_episode_steps=100)
  types = column(time_steps, 'step_type')
  assert np.nonzero((types == LAST).all(axis=1))[0].tolist() == [100, 201]
  assert (column(time_steps, 'discount') == 1).all()
  maker = make_named('envpool/Pendulum-v1', nonsense=1)
  with pytest.raises(UsageError, match=r"envpool.make\('Pendulum-v1', nonsense=1\)"):
    maker(1, 0)


def test_names_lead_to_their_families():
  by_name = {family.name: family.names() for family in FAMILIES}
  assert {'CartPole-v1', 'MaskedCartPole-v1'} <= set(by_name['Gymnasium'])
  assert 'BipedalWalker-v3' in by_name['Box2D']
  assert 'HalfCheetah-v5' in by_name['MuJoCo']
  assert 'HalfCheetah-v4' not in by_name['MuJoCo']
  assert len(by_name['Atari']) > 100
  assert len(by_name['MinAtar']) == 5
  assert len(by_name['bsuite']) == 468
  assert bool(by_name['dm_control']) == LABMAZE
  assert bool(by_name['EnvPool']) == ENVPOOL
  for family in FAMILIES:
    assert all(family_of(name) is family for name in by_name[family.name])


def test_what_counts_as_solved():
  assert target_return('CartPole-v1') == target_return('MaskedCartPole-v1') == 475
  masked = 'callsheet.nodes.masked_environments:MaskedCartPole-v1'
  assert target_return(masked) == 475
  assert target_return('ALE/Pong-v5') is target_return('bsuite/catch/0') is None


def test_the_renderer_of_others_is_left_alone(monkeypatch):
  monkeypatch.setenv('MUJOCO_GL', 'egl')
  if LABMAZE:
    environment_families.import_dm_control()
  assert os.environ['MUJOCO_GL'] == 'egl'
