"""What the offline agents share: declarations, switches, and what they refuse."""

from __future__ import annotations

import functools
import operator

import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import registry
from callsheet.agents.base import EnvironmentSpec, NStep
from callsheet.agents.td3_bc import TD3BCConfig, td3_bc
from callsheet.errors import UsageError
from tests.agents import guard, offline_guard

NAMES = [name for name in registry.names() if registry.is_offline(name)]
PIXELS = EnvironmentSpec(
  specs.BoundedArray((8, 8, 3), np.uint8, 0, 255), guard.CONTINUOUS.action
)
SMALL = {'hidden_sizes': (8,), 'batch_size': 8}


def make(name, spec=guard.CONTINUOUS, **options):
  entry = registry.find(name)
  return entry.make(spec, entry.config(**{**SMALL, **options}))


def test_which_they_are():
  assert NAMES == ['bc', 'cql', 'crr', 'iql', 'td3_bc']
  assert not registry.is_offline('dqn')


@pytest.mark.parametrize('name', NAMES)
def test_what_they_declare(name):
  agent = make(name, discount=0.8)
  assert agent.name == name
  assert agent.writes == NStep('transitions', 1, 0.8)
  [table] = agent.tables
  assert (table.sampler, table.steps) == ('uniform', None)
  assert table.limiter.samples_per_insert is None
  assert set(table.columns) == set(offline_guard.dataset(guard.CONTINUOUS))


# For each switch another value; each has to change what two updates come to.
SWITCHES = [
  ('cql', {'penalty': 1.0}),
  ('cql', {'entropy_backup': True}),
  ('crr', {'advantage': 'max'}),
  ('iql', {'expectile': 0.5}),
  ('iql', {'temperature': 0.0}),
  ('td3_bc', {'alpha': 0.0}),
  ('td3_bc', {'observation_mean': (0.5, 0.5)}),
]


@functools.cache
def first_state(name):
  return offline_guard.compiled(make(name).init)(jax.random.PRNGKey(0))


@functools.cache
def after_two_updates(name, options=()):
  """All parameters, flat; they begin the same whatever the options."""
  agent = make(name, **dict(options))
  batches = offline_guard.batches(agent, offline_guard.dataset(agent.spec), 2)
  update = offline_guard.compiled(
    lambda state, stacked: jax.lax.scan(agent.update, state, stacked)
  )
  state, _ = update(first_state(name), batches)
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


@pytest.mark.parametrize(('name', 'options'), SWITCHES)
def test_every_switch_changes_what_is_learnt(name, options):
  usual, other = after_two_updates(name), after_two_updates(name, (*options.items(),))
  assert np.isfinite(other).all()
  assert (usual != other).any()


def test_td3_bc_improves_its_policy_with_every_second_update_alone():
  agent = make('td3_bc')
  batches = offline_guard.batches(agent, offline_guard.dataset(agent.spec), 4)
  state, changed = first_state('td3_bc'), []
  update = offline_guard.compiled(agent.update)
  for index in range(4):
    before = state
    batch = jax.tree.map(operator.itemgetter(index), batches)
    state, _ = update(state, batch)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, state)
    policy, critics = same.params['policy'], same.params['critics']
    assert not all(jax.tree.leaves(critics))
    assert all(jax.tree.leaves(policy)) == all(jax.tree.leaves(same.target_params))
    changed.append(not all(jax.tree.leaves(policy)))
  assert changed == [False, True, False, True]


def test_statistics_stand_before_the_networks():
  columns = offline_guard.dataset(guard.CONTINUOUS)['observation'][:4]
  mean, std = (1.0, -2.0), (0.5, 4.0)
  plain = make('td3_bc')
  given = make('td3_bc', observation_mean=mean, observation_std=std)
  params = plain.parameters(first_state('td3_bc'))
  scaled = (columns - np.array(mean, np.float32)) / np.array(std, np.float32)
  key = jax.random.PRNGKey(0)
  np.testing.assert_allclose(
    given.evaluation_policy(params, (), columns, key)[0],
    plain.evaluation_policy(params, (), scaled, key)[0],
    rtol=1e-6,
  )


def test_statistics_that_do_not_fit():
  with pytest.raises(
    UsageError, match=r'td3_bc: 3 means and 0 deviations for an obser'
  ):
    make('td3_bc', observation_mean=(1.0, 2.0, 3.0))
  with pytest.raises(
    UsageError, match=r'observation_std is \(1.0, 0.0\), expected fin'
  ):
    TD3BCConfig(observation_std=(1.0, 0.0))
  with pytest.raises(
    UsageError, match=r'observation_mean is \(nan,\), expected finite'
  ):
    TD3BCConfig(observation_mean=(float('nan'),))


@pytest.mark.parametrize('name', NAMES)
def test_actions_stay_within_their_bounds(name):
  agent = make(name)
  params = agent.parameters(first_state(name))
  far = 100 * np.ones((50, 2), np.float32)
  for policy in (agent.policy, agent.evaluation_policy):
    action, _, _ = policy(params, (), far, jax.random.PRNGKey(2))
    assert action.shape == (50, 1)
    assert (np.abs(action) <= 2).all()


WRONG = [
  ('bc', {'batch_size': 0}, 'BCConfig.batch_size is 0, expected an integer of at leas'),
  ('bc', {'hidden_sizes': (0,)}, 'BCConfig.hidden_sizes is (0,), expected positive in'),
  ('cql', {'penalty': -1.0}, 'CQLConfig.penalty is -1.0, expected a number of at leas'),
  ('cql', {'num_samples': 0}, 'CQLConfig.num_samples is 0, expected an integer of at '),
  ('crr', {'weights': 'x'}, "CRRConfig.weights is 'x', expected 'exponential' or 'bin"),
  ('crr', {'advantage': 'x'}, "CRRConfig.advantage is 'x', expected 'mean' or 'max'; "),
  ('crr', {'temperature': 0}, 'CRRConfig.temperature is 0, expected a number above 0'),
  ('iql', {'expectile': 1}, 'IQLConfig.expectile is 1, expected a number between 0 an'),
  ('iql', {'expectile': 0}, 'IQLConfig.expectile is 0, expected a number above 0 and '),
  ('td3_bc', {'policy_delay': 0}, 'TD3BCConfig.policy_delay is 0, expected an integer'),
  ('td3_bc', {'discount': 1.1}, 'TD3BCConfig.discount is 1.1, expected a number above'),
]


@pytest.mark.parametrize(('name', 'options', 'message'), WRONG)
def test_settings_out_of_range(name, options, message):
  with pytest.raises(UsageError) as refused:
    make(name, **options)
  assert str(refused.value).startswith(message)


def test_td3_bc_refuses_discrete_actions():
  with pytest.raises(
    UsageError, match=r'td3_bc: the action is DiscreteArray.*expected'
  ):
    td3_bc(guard.DISCRETE)


@pytest.mark.parametrize('name', NAMES)
def test_environments_that_do_not_fit(name):
  unbounded = guard.CONTINUOUS._replace(action=specs.Array((1,), np.float32))
  with pytest.raises(UsageError, match=f'{name}: the action .* has no finite bounds'):
    make(name, unbounded)
  with pytest.raises(UsageError, match=f'{name}: the observation is .*expected a vec'):
    make(name, PIXELS, torso='mlp')
