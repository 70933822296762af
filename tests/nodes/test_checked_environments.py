"""An environment that goes wrong is named, with its seed, in one line."""

from __future__ import annotations

import pickle

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces

from callsheet.errors import EnvironmentFailed, UsageError
from callsheet.nodes.environments import make_dm_env
from callsheet.nodes.named_environments import make_named

NAN, INF = float('nan'), float('inf')


class Ailing(gymnasium.Env):
  """Goes wrong at its third step, or at its reset."""

  action_space = spaces.Discrete(2)
  observation_space = spaces.Box(-INF, INF, (2,), np.float32)

  def __init__(self, where='nowhere', value=NAN, render_mode=None):
    self._where, self._value = where, value

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._at = 0
    if self._where == 'reset':
      raise OSError('the simulator\nis gone')
    return np.zeros(2, np.float32), {}

  def step(self, action):
    self._at += 1
    observation, reward = np.zeros(2, np.float32), 0.0
    if self._at == 3:
      if self._where == 'step':
        raise ZeroDivisionError
      if self._where == 'observation':
        observation[1] = self._value
      if self._where == 'reward':
        reward = self._value
    return observation, reward, False, False, {}


@pytest.fixture(autouse=True)
def registered():
  gymnasium.register('Ailing-v0', Ailing)
  yield
  del gymnasium.registry['Ailing-v0']


def failure(where, value=NAN):
  environment = make_named('Ailing-v0', where=where, value=value)(2, 7)
  with pytest.raises(EnvironmentFailed) as caught:
    environment.reset()
    for _ in range(5):
      environment.step(np.zeros(2, np.int32))
  environment.close()
  assert '\n' not in str(caught.value)
  assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
  return caught.value


@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('where', ['observation', 'reward'])
def test_what_is_no_number_is_named(where, value):
  assert str(failure(where, value)).startswith(
    f'Ailing-v0 (seed 7): step 3 gave {value} in the {where} of environment 0 of 2; '
  )


def test_what_it_raises_is_named_and_kept():
  error = failure('step')
  assert str(error) == 'Ailing-v0 (seed 7): step 3 raised ZeroDivisionError'
  assert isinstance(error.__cause__, ZeroDivisionError)
  error = failure('reset')
  assert str(error) == 'Ailing-v0 (seed 7): reset raised OSError: the simulator is gone'


def test_large_numbers_are_none_of_its_business():
  environment = make_named('Ailing-v0', where='reward', value=1e30)(2, 7)
  for _ in range(5):
    time_step = environment.step(np.zeros(2, np.int32))
  assert (time_step.step_type == dm_env.StepType.MID).all()


class Lost(dm_env.Environment):
  def reset(self):
    return dm_env.restart(np.zeros(1))

  def step(self, action):
    return dm_env.transition(1.0, np.full(1, NAN))

  def observation_spec(self):
    return specs.Array((1,), np.float64)

  def action_spec(self):
    return specs.DiscreteArray(2)


def test_dm_env_is_named_too():
  environment = make_dm_env(lambda seed: Lost(), 'lost')(1, 3)
  environment.reset()
  with pytest.raises(EnvironmentFailed, match=r'lost \(seed 3\): step 1 gave nan in'):
    environment.step(np.zeros(1, np.int32))
  unnamed = make_dm_env(Lost)
  with pytest.raises(UsageError, match='num_environments is 0'):
    unnamed(0, 0)


def test_what_raises_while_it_is_made_is_named():
  with pytest.raises(
    UsageError, match=r"Ailing-v0 can not be made: .*, colour='red'\)"
  ):
    make_named('Ailing-v0', colour='red')(1, 0)
