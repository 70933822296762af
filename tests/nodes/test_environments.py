"""Batches of environments: one law, whichever way they are stepped."""

from __future__ import annotations

import itertools
import pickle
import random

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError
from callsheet.nodes.environments import DmEnvVector, make_dm_env
from callsheet.nodes.gymnasium_environments import GymnasiumVector, make_gymnasium

FIRST, MID, LAST = (int(kind) for kind in dm_env.StepType)
WAYS = ['vector_entry_point', 'sync']


class Countdown(dm_env.Environment):
  """Ends after `length` steps: by truncation if that is even, else by termination."""

  def __init__(self, seed, *, dtype=np.float64):
    self._rng = random.Random(seed)
    self._left = 0
    self.closed = False
    self.actions = []
    self._dtype = dtype

  def _observation(self):
    return np.full(2, self._left, self._dtype)

  def reset(self):
    self._length = self._left = self._rng.randint(1, 4)
    return dm_env.restart(self._observation())

  def step(self, action):
    if self._left == 0:
      return self.reset()
    self.actions.append(action)
    self._left -= 1
    if self._left:
      return dm_env.transition(1.0, self._observation())
    end = dm_env.termination if self._length % 2 else dm_env.truncation
    return end(1.0, self._observation())

  def observation_spec(self):
    return specs.BoundedArray((2,), self._dtype, 0, 4, 'left')

  def action_spec(self):
    return specs.DiscreteArray(3, np.int64)

  def close(self):
    self.closed = True


def countdowns(num_environments, seed):
  return make_dm_env(Countdown)(num_environments, seed)


def cartpoles(way):
  return make_gymnasium('CartPole-v1', vectorization_mode=way)


MAKERS = {'dm_env': countdowns, **{way: cartpoles(way) for way in WAYS}}


def play(environment, steps, seed=0):
  rng = np.random.default_rng(seed)
  time_steps = [environment.reset()]
  for _ in range(steps):
    action = rng.integers(0, 2, environment.num_environments).astype(np.int32)
    time_steps.append(environment.step(action))
  environment.close()
  return time_steps


def check_law(environment, time_steps):
  count, spec = environment.num_environments, environment.spec()
  assert (time_steps[0].step_type == FIRST).all()
  for time_step in time_steps:
    assert time_step.step_type.shape == (count,)
    assert time_step.step_type.dtype == np.int32
    assert time_step.reward.dtype == time_step.discount.dtype == np.float32
    assert time_step.reward.shape == time_step.discount.shape == (count,)
    assert time_step.observation.shape == (count, *spec.observation.shape)
    assert time_step.observation.dtype == spec.observation.dtype
    assert time_step.observation.flags.c_contiguous
    first = time_step.step_type == FIRST
    assert (time_step.reward[first] == 0).all()
    assert (time_step.discount[time_step.step_type != LAST] == 1).all()
    assert np.isin(time_step.discount, [0, 1]).all()
  for before, after in itertools.pairwise(time_steps):
    np.testing.assert_array_equal(before.step_type == LAST, after.step_type == FIRST)


@pytest.mark.parametrize('kind', MAKERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 5), steps=st.integers(0, 80))
def test_the_law_of_time_steps(kind, seed, count, steps):
  environment = MAKERS[kind](count, seed)
  check_law(environment, play(environment, steps))


@pytest.mark.parametrize('kind', MAKERS)
def test_the_same_for_the_same_seed_and_another_for_another(kind):
  def observations(seed):
    return np.stack([t.observation for t in play(MAKERS[kind](3, seed), 60)])

  np.testing.assert_array_equal(observations(5), observations(5))
  assert (observations(5) != observations(6)).any()


@pytest.mark.parametrize('way', WAYS)
def test_neighbouring_seeds_share_no_episode(way):
  starts = [cartpoles(way)(4, seed).reset().observation for seed in range(8)]
  assert len(np.unique(np.concatenate(starts), axis=0)) == 32


@pytest.mark.parametrize('kind', MAKERS)
def test_factories_can_travel_to_another_process(kind):
  if kind == 'dm_env':
    maker = make_dm_env(random.Random)  # Any callable that can be pickled.
    assert pickle.loads(pickle.dumps(maker)) == maker
  else:
    maker = pickle.loads(pickle.dumps(MAKERS[kind]))
    np.testing.assert_array_equal(
      maker(2, 3).reset().observation, MAKERS[kind](2, 3).reset().observation
    )


@pytest.mark.parametrize('kind', MAKERS)
def test_a_step_before_any_reset_is_one(kind):
  environment = MAKERS[kind](2, 0)
  first = environment.step(np.zeros(2, np.int32))
  assert (first.step_type == FIRST).all()
  np.testing.assert_array_equal(
    first.observation, MAKERS[kind](2, 0).reset().observation
  )


@pytest.mark.parametrize('kind', MAKERS)
def test_time_steps_are_not_changed_afterwards(kind):
  environment = MAKERS[kind](2, 0)
  first = environment.reset()
  kept = first.observation.copy()
  for _ in range(3):
    environment.step(np.zeros(2, np.int32))
  np.testing.assert_array_equal(first.observation, kept)


@pytest.mark.parametrize('kind', MAKERS)
def test_at_least_one_environment(kind):
  with pytest.raises(UsageError, match='num_environments is 0'):
    MAKERS[kind](0, 0)


# Gymnasium.


def balance(observation):
  """A controller that keeps CartPole's pole up for 500 steps."""
  x, v, angle, speed = observation.T
  return (angle + 0.5 * speed + 0.05 * x + 0.1 * v > 0).astype(np.int32)


@pytest.mark.parametrize('way', WAYS)
def test_truncation_after_500_steps_keeps_the_discount(way):
  environment = cartpoles(way)(3, 0)
  time_steps = [environment.reset()]
  for _ in range(502):
    time_steps.append(environment.step(balance(time_steps[-1].observation)))
  environment.close()
  check_law(environment, time_steps)
  types = np.stack([t.step_type for t in time_steps])
  assert (types[1:500] == MID).all()
  assert (types[500] == LAST).all()
  assert (time_steps[500].discount == 1).all()
  assert sum(t.reward for t in time_steps[:501]).tolist() == [500] * 3
  # The last observation goes on from the one before; the next one is a new start.
  assert np.abs(time_steps[500].observation - time_steps[499].observation).max() < 1
  assert (np.abs(time_steps[501].observation) <= 0.05).all()


@pytest.mark.parametrize('way', WAYS)
def test_termination_ends_the_discount_on_the_fallen_pole(way):
  environment = cartpoles(way)(4, 1)
  time_step, ended = environment.reset(), 0
  for _ in range(40):
    time_step = environment.step(np.ones(4, np.int32))
    last = time_step.step_type == LAST
    assert (time_step.discount[last] == 0).all()
    assert (time_step.reward[last] == 1).all()
    assert (np.abs(time_step.observation[last][:, 2]) > 0.2).all()
    ended += last.sum()
  assert ended >= 8


def test_both_ways_move_alike():
  vector, sync = gymnasium.make_vec('CartPole-v1', 2), cartpoles('sync')(2, 0)
  native = GymnasiumVector(vector, 0)
  native.reset()
  start = sync.reset()
  vector.unwrapped.state = np.array(start.observation.T, np.float64)
  returns = np.zeros((2, 2))
  for t in range(30):
    action = np.array([t % 2, t % 3 == 0], np.int32)
    a, b = native.step(action), sync.step(action)
    if t < 8:  # Before any of them has fallen and begun anew.
      np.testing.assert_allclose(a.observation, b.observation, atol=1e-5)
    returns += [a.reward, b.reward]
  assert native.spec() == sync.spec()
  assert (returns > 20).all()


def test_specs_take_32_bits_and_count_from_zero():
  class Odd(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(4, start=10)
    action_space = gymnasium.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
      super().reset(seed=seed)
      return np.int64(10), {}

    def step(self, action):
      assert self.action_space.contains(action)
      return np.int64(12 + action), 1.0, False, False, {}

  environment = GymnasiumVector(SyncVectorEnv([Odd, Odd, Odd]), seed=0)
  spec = environment.spec()
  assert isinstance(spec.observation, specs.DiscreteArray)
  assert isinstance(spec.action, specs.DiscreteArray)
  assert (spec.observation.num_values, spec.action.num_values) == (4, 3)
  assert environment.reset().observation.tolist() == [0, 0, 0]
  after = environment.step(np.array([0, 1, 2], np.int32))
  assert after.observation.tolist() == [1, 2, 3]

  box = make_gymnasium('MountainCarContinuous-v0')(2, 0)
  assert box.spec().action == specs.BoundedArray((1,), np.float32, -1, 1)
  assert box.step(np.zeros((2, 1), np.float32)).observation.dtype == np.float32


@pytest.mark.parametrize(
  ('env_id', 'message'),
  [
    ('CartPoll-v1', "no Gymnasium environment 'CartPoll-v1': did you mean CartPole-v1"),
    ('CartPole-v9', 'did you mean CartPole-v1'),
    ('no_such_module:Thing-v0', "can't import 'no_such_module'"),
    ('qqqqqqqq', 'callsheet envs. has all'),
  ],
)
def test_an_unknown_environment_is_named_at_once(env_id, message):
  with pytest.raises(UsageError, match=message) as caught:
    make_gymnasium(env_id)
  assert '\n' not in str(caught.value)


def test_a_space_without_a_spec_is_refused_with_the_way_out():
  class Words(gymnasium.Env):
    observation_space = gymnasium.spaces.Text(4)
    action_space = gymnasium.spaces.MultiDiscrete([2, 3])

  with pytest.raises(UsageError, match=r'observation space is Text, .*FlattenObserv'):
    GymnasiumVector(SyncVectorEnv([Words]), seed=0)
  Words.observation_space = gymnasium.spaces.Discrete(2)
  with pytest.raises(UsageError, match=r'action space is MultiDiscrete, .*TransformA'):
    GymnasiumVector(SyncVectorEnv([Words]), seed=0)


def test_another_autoreset_is_refused():
  def one():
    return gymnasium.make('CartPole-v1')

  same_step = SyncVectorEnv([one], autoreset_mode=AutoresetMode.SAME_STEP)
  with pytest.raises(UsageError, match=r'expected AutoresetMode\.NEXT_STEP'):
    GymnasiumVector(same_step, seed=0)
  same_step.close()


# dm_env.


def test_dm_environments_are_cast_and_closed():
  environments = [Countdown(0), Countdown(1)]
  vector = DmEnvVector(environments)
  assert vector.spec().observation.dtype == np.float32
  assert vector.spec().action == specs.DiscreteArray(3, np.int32)
  vector.reset()
  vector.step(np.array([1, 2], np.int32))
  assert environments[1].actions[0] == 2
  assert environments[1].actions[0].dtype == np.int64
  vector.close()
  assert all(environment.closed for environment in environments)


def test_pixels_keep_their_bytes():
  vector = DmEnvVector([Countdown(0, dtype=np.uint8)])
  assert vector.reset().observation.dtype == vector.spec().observation.dtype == np.uint8


def test_what_is_no_array_is_refused():
  class Listed(Countdown):
    def observation_spec(self):
      return [specs.Array((1,), np.float32)]

  class Two(Countdown):
    def action_spec(self):
      return {'a': specs.Array((1,), np.float32)}

  with pytest.raises(UsageError, match='the observation spec is a list, expected one'):
    DmEnvVector([Listed(0)])
  with pytest.raises(UsageError, match='Two: the action spec is a dict, expected one'):
    make_dm_env(Two)(1, 0)


def test_both_endings_come_through():
  time_steps = play(countdowns(4, 0), 60)
  last = np.stack([t.step_type for t in time_steps]) == LAST
  assert set(np.stack([t.discount for t in time_steps])[last].tolist()) == {0.0, 1.0}


def test_a_spec_is_of_one_environment():
  assert isinstance(cartpoles('sync')(3, 0).spec(), EnvironmentSpec)
  assert cartpoles('sync')(3, 0).spec().observation.shape == (4,)
