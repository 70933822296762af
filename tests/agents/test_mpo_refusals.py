"""MPO and DMPO refuse settings and environments that don't fit them."""

from __future__ import annotations

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import registry
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.mpo import DMPOConfig, MPOConfig, mpo
from callsheet.errors import UsageError

ACTION = specs.BoundedArray((2,), np.float32, -1, 1)
SPEC = EnvironmentSpec(specs.Array((3,), np.float32), ACTION)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('num_samples', 0),
    ('num_atoms', 1),
    ('v_max', -150.0),
    ('epsilon', 0.0),
    ('epsilon_mean', -1.0),
    ('initial_temperature', 0.0),
    ('initial_stddev', 0.0),
    ('min_stddev', 0.0),
    ('discount', 1.5),
    ('policy_update_period', 0),
    ('policy_sizes', ()),
    ('critic_sizes', (8, 0)),
    ('dual_learning_rate', 0.0),
    ('max_gradient_norm', 0.0),
    ('batch_size', 10**9),
  ],
)
def test_settings_out_of_range_are_refused(name, value):
  with pytest.raises(UsageError, match=f'MPOConfig.{name} is'):
    MPOConfig(**{name: value})
  with pytest.raises(UsageError, match=f'DMPOConfig.{name} is'):
    DMPOConfig(**{name: value})


@pytest.mark.parametrize('name', ['mpo', 'dmpo'])
def test_discrete_and_unbounded_actions_are_refused(name):
  make, observation = registry.find(name).make, SPEC.observation
  with pytest.raises(UsageError, match=f'^{name}: .*discrete actions'):
    make(EnvironmentSpec(observation, specs.DiscreteArray(2)))
  with pytest.raises(UsageError, match=f'^{name}: .*no finite bounds'):
    make(EnvironmentSpec(observation, specs.Array((2,), np.float32)))


def test_pixels_are_refused_by_dense_layers():
  spec = EnvironmentSpec(specs.Array((10, 10, 4), np.uint8), ACTION)
  with pytest.raises(UsageError, match=r"^mpo: .*a vector for the torso 'mlp'"):
    mpo(spec, MPOConfig(torso='mlp'))
