"""What DQN declares, and what it refuses."""

from __future__ import annotations

import dataclasses

import haiku as hk
import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, Limiter, NStep, Sampling
from callsheet.agents.dqn import DQNConfig, RainbowConfig, dqn, rainbow
from callsheet.errors import UsageError
from tests.agents.small_dqn import SMALL, SPEC


def test_it_declares_what_is_written_and_sampled():
  config = DQNConfig(n_step=4, discount=0.9, samples_per_insert=8.0, batch_size=16)
  agent = dqn(SPEC, config)
  (table,) = agent.tables
  assert agent.writes == NStep(table.name, 4, 0.9)
  assert agent.samples == Sampling(table.name, 16)
  assert table.limiter == Limiter(config.min_replay_size, 8.0)
  assert (table.sampler, table.priority_exponent) == ('prioritized', 0.6)
  assert {name: (c.shape, c.dtype) for name, c in table.columns.items()} == {
    'observation': ((3,), np.float32),
    'action': ((), np.int32),
    'reward': ((), np.float32),
    'discount': ((), np.float32),
    'next_observation': ((3,), np.float32),
  }
  assert agent.config['n_step'] == 4
  uniform = dqn(SPEC, dataclasses.replace(config, prioritized=False))
  assert uniform.tables[0].sampler == 'uniform'


def test_pixels_need_a_torso_and_discrete_observations_none():
  action = specs.DiscreteArray(3)
  pixels = EnvironmentSpec(specs.Array((8, 8, 1), np.uint8), action)
  with pytest.raises(UsageError, match=r'shape=\(8, 8, 1\).*dqn\(spec, torso='):
    dqn(pixels, DQNConfig(torso='mlp'))

  def torso(image):
    return hk.Flatten()(hk.Conv2D(2, 3)(image / 255))

  discrete = EnvironmentSpec(specs.DiscreteArray(5), action)
  cases = [
    (dqn(pixels, SMALL, torso=torso), np.zeros((2, 8, 8, 1), np.uint8)),
    (dqn(discrete, SMALL), np.array([0, 4], np.int32)),
  ]
  for agent, observation in cases:
    key = jax.random.PRNGKey(0)
    params = agent.init(key).params
    action, _, _ = agent.policy(params, agent.initial_carry(2), observation, key)
    assert action.shape == (2,)


@pytest.mark.parametrize(
  'action',
  [specs.BoundedArray((1,), np.float32, -1, 1), specs.BoundedArray((2,), int, 0, 1)],
)
def test_actions_must_be_discrete(action):
  with pytest.raises(UsageError, match=r'dqn: the action is BoundedArray.*Discrete'):
    dqn(EnvironmentSpec(SPEC.observation, action))
  bounded = EnvironmentSpec(SPEC.observation, specs.BoundedArray((), np.int64, 0, 4))
  assert dqn(bounded).tables[0].columns['action'] == specs.DiscreteArray(5)


@pytest.mark.parametrize(
  'wrong',
  [
    {'n_step': 0},
    {'n_step': 2.5},
    {'n_step': True},
    {'discount': 0.0},
    {'discount': 1.01},
    {'learning_rate': -1e-3},
    {'learning_rate': float('nan')},
    {'adam_epsilon': '1'},
    {'max_gradient_norm': 0.0},
    {'huber_delta': -1.0},
    {'batch_size': 0},
    {'batch_size': 10**9},
    {'target_update_period': 0},
    {'samples_per_insert': 0.0},
    {'min_replay_size': 0},
    {'min_replay_size': 10**9},
    {'max_replay_size': -1},
    {'epsilon': 1.5},
    {'epsilon_alpha': -1.0},
    {'evaluation_epsilon': -0.1},
    {'priority_exponent': -0.1},
    {'importance_exponent': 2.0},
    {'hidden_sizes': (64, 0)},
    {'noise_scale': -0.1},
    {'distribution': 'normal'},
    {'num_atoms': 1},
    {'v_min': float('-inf')},
    {'v_max': -10.0},
    {'num_quantiles': 0},
    {'num_samples': 0},
    {'num_policy_samples': 0},
    {'embedding_size': 0},
    {'munchausen_alpha': 1.5},
    {'munchausen_temperature': 0.0},
    {'munchausen_clip': 0.5},
  ],
)
def test_a_value_out_of_its_range_is_refused(wrong):
  (name,) = wrong
  with pytest.raises(UsageError, match=rf'DQNConfig\.{name} is .*, expected') as caught:
    DQNConfig(**wrong)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('switches', 'message'),
  [
    ({}, r'double=True has no meaning .*; right is DQNConfig\(munchausen=True, dou'),
    (
      {'distribution': 'categorical', 'double': False},
      r"no meaning with distribution='categorical'.* DQNConfig\(munchausen=True, dou",
    ),
  ],
)
def test_switches_that_do_not_go_together_are_refused(switches, message):
  with pytest.raises(UsageError, match=message) as caught:
    DQNConfig(munchausen=True, **switches)
  assert '\n' not in str(caught.value)
  assert DQNConfig(munchausen=True, double=False, distribution='implicit').munchausen


def test_rainbow_is_all_of_its_switches():
  config = RainbowConfig()
  assert config.double and config.dueling and config.prioritized and config.noisy
  assert (config.distribution, config.n_step) == ('categorical', 3)
  agent = rainbow(SPEC)
  assert agent.name == 'rainbow'
  assert agent.writes.n_step == 3
  assert agent.tables[0].sampler == 'prioritized'
  assert agent.initial_carry(3).tolist() == [0, 0, 0]
  with pytest.raises(UsageError, match='rainbow: the action is BoundedArray'):
    action = specs.BoundedArray((1,), np.float32, -1, 1)
    rainbow(EnvironmentSpec(SPEC.observation, action))
  with pytest.raises(UsageError, match=r'RainbowConfig\.n_step is 0'):
    RainbowConfig(n_step=0)
