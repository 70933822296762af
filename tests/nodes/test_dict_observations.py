"""Environments that show several things travel as vectors, of Gymnasium and dm_env."""

from __future__ import annotations

from collections import OrderedDict

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from callsheet.agents.observations import unpack
from callsheet.errors import UsageError
from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.gymnasium_environments import GymnasiumVector
from tests.nodes.environment_law import check_law, play


class Robot(gymnasium.Env):
  """Shows how often it was stepped, in several ways."""

  observation_space = spaces.Dict(
    {
      'body': spaces.Dict({'speed': spaces.Box(-9, 9, (2,), np.float64)}),
      'camera': spaces.Box(0, 255, (2, 2, 1), np.uint8),
      'gear': spaces.Discrete(3, start=1),
      'lamps': spaces.MultiBinary(2),
      'pair': spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 9, ())]),
    }
  )
  action_space = spaces.Discrete(2)

  def _seen(self):
    return {
      'body': {'speed': np.array([self._at, -self._at], np.float64)},
      'camera': np.full((2, 2, 1), 50 * self._at, np.uint8),
      'gear': np.int64(1 + self._at % 3),
      'lamps': np.array([1, self._at % 2], np.int8),
      'pair': (np.int64(self._at % 2), np.array(self._at, np.float32)),
    }

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._at = 0
    return self._seen(), {}

  def step(self, action):
    self._at += 1
    return self._seen(), 1.0, self._at == 4, False, {}


def test_a_dict_of_gymnasium():
  environment = GymnasiumVector(SyncVectorEnv([Robot, Robot]), seed=0)
  spec = environment.spec().observation
  assert {name: part.shape for name, part in spec.parts.items()} == {
    'body/speed': (2,),
    'camera': (2, 2, 1),
    'gear': (3,),
    'lamps': (2,),
    'pair/0': (2,),
    'pair/1': (),
  }
  time_steps = play(environment, 12)
  check_law(environment, time_steps)
  parts = unpack(spec, time_steps[2].observation)
  assert parts['body/speed'].tolist() == [[2, -2]] * 2
  assert parts['camera'].dtype == np.uint8 and (parts['camera'] == 100).all()
  assert parts['gear'].tolist() == [[0, 0, 1]] * 2
  assert parts['lamps'].tolist() == [[1, 0]] * 2
  assert parts['pair/0'].tolist() == [[1, 0]] * 2
  assert parts['pair/1'].tolist() == [2, 2]


def test_what_has_no_numbers_is_refused_by_its_place():
  class Talking(Robot):
    observation_space = spaces.Dict({'a': spaces.Dict({'mission': spaces.Text(3)})})

  with pytest.raises(UsageError, match=r"the part 'a/mission' .* is Text, .*Filter"):
    GymnasiumVector(SyncVectorEnv([Talking]), seed=0)


class Arm(dm_env.Environment):
  """The same for dm_env."""

  def _seen(self):
    return OrderedDict(
      joints=np.array([self._at, 0.5]),
      touch={'finger': np.float64(-self._at)},
      gear=self._at % 3,
    )

  def reset(self):
    self._at = 0
    return dm_env.restart(self._seen())

  def step(self, action):
    if self._at == 4:
      return self.reset()
    self._at += 1
    end = dm_env.termination if self._at == 4 else dm_env.transition
    return end(reward=1.0, observation=self._seen())

  def observation_spec(self):
    return OrderedDict(
      joints=specs.Array((2,), np.float64),
      touch={'finger': specs.BoundedArray((), np.float64, -9, 9)},
      gear=specs.DiscreteArray(3),
    )

  def action_spec(self):
    return specs.DiscreteArray(2)


def test_a_mapping_of_dm_env():
  environment = DmEnvVector([Arm(), Arm()])
  spec = environment.spec().observation
  assert {name: part.shape for name, part in spec.parts.items()} == {
    'joints': (2,),
    'touch/finger': (),
    'gear': (3,),
  }
  time_steps = play(environment, 12)
  check_law(environment, time_steps)
  parts = unpack(spec, time_steps[2].observation)
  assert parts['joints'].tolist() == [[2, 0.5]] * 2
  assert parts['touch/finger'].tolist() == [-2, -2]
  assert parts['gear'].tolist() == [[0, 0, 1]] * 2
