"""What SAC, TD3, DDPG and D4PG take, what they refuse, and how they are run."""

from __future__ import annotations

import cloudpickle
import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import registry
from callsheet.agents.base import EnvironmentSpec, NStep
from callsheet.errors import UsageError
from tests.agents import guard
from tests.agents.continuous import SPEC, random_batch

CONTINUOUS = ['sac', 'td3', 'ddpg', 'd4pg']
AGENTS = [*CONTINUOUS, 'sac_discrete']
PIXELS = specs.Array((36, 36, 3), np.uint8)
UNBOUNDED = EnvironmentSpec(
  SPEC.observation, specs.BoundedArray((2,), np.float32, -np.inf, 1)
)
DOUBLE = EnvironmentSpec(
  specs.Array((3,), np.float64), specs.BoundedArray((2,), np.float64, -1, 1)
)


def make(name, spec, **settings):
  entry = registry.find(name)
  return entry.make(spec, entry.config(**settings))


def right(name):
  return guard.DISCRETE if name == 'sac_discrete' else SPEC


def refused(name, spec, **settings):
  with pytest.raises(UsageError) as caught:
    make(name, spec, **settings)
  message = str(caught.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize('name', CONTINUOUS)
def test_discrete_actions_are_refused(name):
  message = refused(name, guard.DISCRETE)
  assert name in message and 'take an agent for discrete actions' in message


def test_continuous_actions_are_refused_by_the_discrete_one():
  message = refused('sac_discrete', SPEC)
  assert 'sac_discrete' in message and 'agent for continuous' in message


@pytest.mark.parametrize('name', CONTINUOUS)
def test_actions_without_bounds_are_refused(name):
  message = refused(name, UNBOUNDED)
  assert name in message and 'no finite bounds' in message


@pytest.mark.parametrize('name', AGENTS)
def test_pixels_need_a_torso_that_takes_them(name):
  spec = EnvironmentSpec(PIXELS, right(name).action)
  message = refused(name, spec, torso='mlp')
  assert name in message and "torso='auto'" in message


@pytest.mark.parametrize('name', AGENTS)
@pytest.mark.parametrize(
  ('setting', 'value'),
  [
    ('n_step', 0),
    ('discount', 1.5),
    ('tau', 0.0),
    ('hidden_sizes', (8, 0)),
    ('learning_rate', 0.0),
    ('batch_size', 2_000_000),
    ('samples_per_insert', -1.0),
  ],
)
def test_settings_out_of_range_are_refused(name, setting, value):
  message = refused(name, right(name), **{setting: value})
  assert f'Config.{setting} is {value!r}' in message and 'the default' in message


@pytest.mark.parametrize(
  ('name', 'setting', 'value'),
  [
    ('sac', 'initial_temperature', 0.0),
    ('sac', 'target_entropy', float('nan')),
    ('sac_discrete', 'entropy_share', 1.1),
    ('td3', 'policy_delay', 0),
    ('td3', 'smoothing', -0.1),
    ('ddpg', 'exploration_correlation', 1.0),
    ('d4pg', 'num_atoms', 1),
    ('d4pg', 'v_min', 200.0),
    ('d4pg', 'importance_exponent', 2.0),
  ],
)
def test_settings_of_its_own_out_of_range_are_refused(name, setting, value):
  assert f'Config.{setting} is {value!r}' in refused(
    name, right(name), **{setting: value}
  )


@pytest.mark.parametrize('name', AGENTS)
def test_updates_can_be_scanned(name):
  agent = make(name, right(name), hidden_sizes=(4,), batch_size=4)
  columns = agent.tables[0].columns
  batch = random_batch()._replace(
    data={key: np.zeros((4, *each.shape), each.dtype) for key, each in columns.items()}
  )
  batches = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), batch)
  state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
  after, metrics = jax.eval_shape(
    lambda state: jax.lax.scan(agent.update, state, batches), state
  )
  assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
  assert all(each.shape == (2,) for each in metrics.values())


@pytest.mark.parametrize('name', CONTINUOUS)
def test_actions_are_float32_where_the_environment_shows_doubles(name):
  agent = make(name, DOUBLE, hidden_sizes=(4,))
  columns = agent.tables[0].columns
  assert columns['action'].dtype == np.float32 and agent.tables[0].steps is None
  action, _, extras = jax.eval_shape(
    lambda key: agent.policy(
      agent.parameters(agent.init(key)),
      agent.initial_carry(2),
      np.zeros((2, 3), np.float32),
      key,
    ),
    jax.random.PRNGKey(0),
  )
  assert action.shape == (2, 2) and action.dtype == np.float32 and extras == ()


@pytest.mark.parametrize('name', AGENTS)
def test_pixels_and_a_torso_of_ones_own(name):
  spec = EnvironmentSpec(PIXELS, right(name).action)
  taken = []

  def torso(observation):
    taken.append(observation.dtype)
    return observation.reshape(len(observation), -1)[:, :2].astype(np.float32)

  entry = registry.find(name)
  own = entry.make(spec, entry.config(hidden_sizes=(4,)), torso=torso)
  auto = make(name, spec, hidden_sizes=(4,), n_step=2, num_stacked=3)
  for agent in (own, auto):
    jax.eval_shape(agent.init, jax.random.PRNGKey(0))
    assert agent.tables[0].steps is not None
  assert taken and set(taken) == {np.dtype(np.uint8)}
  assert auto.writes == NStep('transitions', 2, 0.99, 3)


@pytest.mark.parametrize('name', AGENTS)
def test_agents_can_be_sent(name):
  agent = make(name, right(name), hidden_sizes=(4,))
  again = cloudpickle.loads(cloudpickle.dumps(agent))
  assert again.config == agent.config and again.name == name
