"""DQN against rlax, against numbers worked by hand, and on a problem it must solve."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys

import cloudpickle
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Batch, EnvironmentSpec, Limiter, NStep, Sampling
from callsheet.agents.dqn import DQNConfig, dqn, epsilon_ladder, importance_weights
from callsheet.errors import UsageError

SPEC = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(2, np.int32))
SMALL = DQNConfig(hidden_sizes=(8, 8), batch_size=4, max_gradient_norm=None)
SWITCHES = [
  dict(zip(('double', 'dueling', 'prioritized', 'huber_delta'), values, strict=True))
  for values in itertools.product(
    (True, False), (True, False), (True, False), (0.5, None)
  )
]


def random_batch(seed=0, size=4, scale=2.0):
  rng = np.random.default_rng(seed)
  return Batch(
    data={
      'observation': rng.normal(size=(size, 3)).astype(np.float32),
      'action': rng.integers(0, 2, size).astype(np.int32),
      'reward': (scale * rng.normal(size=size)).astype(np.float32),
      'discount': rng.choice([0.0, 0.97], size).astype(np.float32),
      'next_observation': rng.normal(size=(size, 3)).astype(np.float32),
    },
    probabilities=rng.uniform(0.01, 0.2, size).astype(np.float32),
    table_size=np.int32(50),
  )


def disagreeing_state(agent):
  """A state whose two networks differ, so that one for the other is noticed."""
  init = jax.jit(agent.init)
  other = init(jax.random.PRNGKey(1)).params
  return init(jax.random.PRNGKey(0))._replace(target_params=other)


def mlp(params, name, x):
  layers = sorted(key for key in params if key.startswith(f'{name}/'))
  for i, layer in enumerate(layers):
    x = x @ np.asarray(params[layer]['w']) + np.asarray(params[layer]['b'])
    x = x if name != 'torso' and i == len(layers) - 1 else np.maximum(x, 0)
  return x


def values_of(params, observation):
  """The network in NumPy."""
  features = mlp(params, 'torso', observation)
  advantage = mlp(params, 'advantage', features)
  if not any(key.startswith('value/') for key in params):
    return advantage
  value = mlp(params, 'value', features)
  return value + advantage - advantage.mean(axis=-1, keepdims=True)


# The loss.


@pytest.mark.parametrize('switches', SWITCHES)
def test_the_loss_is_that_of_rlax(switches):
  config = dataclasses.replace(SMALL, **switches)
  agent = dqn(SPEC, config)
  state, batch = disagreeing_state(agent), random_batch()
  data = batch.data
  q_tm1 = values_of(state.params, data['observation'])
  q_t_online = values_of(state.params, data['next_observation'])
  q_t = values_of(state.target_params, data['next_observation'])
  observed = (q_tm1, data['action'], data['reward'], data['discount'], q_t)
  if config.double:
    errors = jax.vmap(rlax.double_q_learning)(*observed, q_t_online)
  else:
    errors = jax.vmap(rlax.q_learning)(*observed)
  if config.huber_delta is None:
    losses = rlax.l2_loss(errors)
  else:
    losses = rlax.huber_loss(errors, config.huber_delta)
  if config.prioritized:
    weights = (50 * batch.probabilities) ** -config.importance_exponent
    losses = losses * weights / weights.max()

  _, metrics = jax.jit(agent.update)(state, batch)
  np.testing.assert_allclose(metrics['loss'], losses.mean(), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(metrics['td_error'], jnp.abs(errors).mean(), rtol=1e-4)
  np.testing.assert_allclose(metrics['q'], q_tm1.max(axis=-1).mean(), rtol=1e-4)
  assert ('priorities' in metrics) == config.prioritized
  if config.prioritized:
    np.testing.assert_allclose(metrics['priorities'], jnp.abs(errors), rtol=1e-3)


def by_hand(**changes):
  """A linear network of known weights: q(s) = (s0, 2 s1), and its target (s1, s0)."""
  spec = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(2))
  config = DQNConfig(
    **{
      'hidden_sizes': (),
      'dueling': False,
      'huber_delta': None,
      'max_gradient_norm': None,
      'importance_exponent': 1.0,
      **changes,
    }
  )
  agent = dqn(spec, config)
  state = agent.init(jax.random.PRNGKey(0))

  def weights(matrix):
    def set_to(leaf):
      return jnp.array(matrix) if leaf.ndim == 2 else jnp.zeros_like(leaf)

    return jax.tree.map(set_to, state.params)

  state = state._replace(
    params=weights([[1.0, 0.0], [0.0, 2.0]]),
    target_params=weights([[0.0, 1.0], [1.0, 0.0]]),
  )
  batch = Batch(
    data={
      'observation': np.array([[1, 2], [3, 1]], np.float32),
      'action': np.array([0, 1], np.int32),
      'reward': np.array([0.5, -1], np.float32),
      'discount': np.array([0.5, 0], np.float32),
      'next_observation': np.array([[5, 3], [1, 1]], np.float32),
    },
    probabilities=np.array([0.25, 0.5], np.float32),
    table_size=np.int32(4),
  )
  return agent, state, batch


# q(s) = (1, 4), (3, 2): chosen 1 and 2. At s' = (5, 3) the online network has (5, 6)
# and selects action 1; the target network has (3, 5) and values it with its largest, 5.
# At s' = (1, 1) nothing counts. Targets 0.5 + 0.5 * 5 = 3 and -1: errors 2 and -3,
# squared losses 2 and 4.5; with delta 1 the linear ones 1.5 and 2.5.
# Weights (4 * 0.25)^-1 = 1 and (4 * 0.5)^-1 = 0.5.
@pytest.mark.parametrize(
  ('changes', 'loss'),
  [
    ({'prioritized': False}, (2 + 4.5) / 2),
    ({'prioritized': False, 'double': False}, (2 + 4.5) / 2),
    ({'prioritized': False, 'huber_delta': 1.0}, (1.5 + 2.5) / 2),
    ({'prioritized': True}, (2 + 0.5 * 4.5) / 2),
    ({'prioritized': True, 'importance_exponent': 0.0}, (2 + 4.5) / 2),
    ({'prioritized': True, 'huber_delta': 1.0}, (1.5 + 0.5 * 2.5) / 2),
  ],
)
def test_a_batch_worked_by_hand(changes, loss):
  agent, state, batch = by_hand(**changes)
  _, metrics = agent.update(state, batch)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-6)
  np.testing.assert_allclose(metrics['td_error'], 2.5, rtol=1e-6)
  np.testing.assert_allclose(metrics['q'], 3.5, rtol=1e-6)
  if 'priorities' in metrics:
    np.testing.assert_allclose(metrics['priorities'], [2, 3], rtol=1e-5)


# At s' = (5, 1) the online network has (5, 2) and selects action 0, which the target
# network, (1, 5), values with 1: the target is 0.5 + 0.5 * 1 = 1, the error 0. Without
# `double` it takes its own largest, 5: the target is 3, the error 2.
@pytest.mark.parametrize(('double', 'error'), [(True, 0.0), (False, 2.0)])
def test_double_changes_the_target(double, error):
  agent, state, batch = by_hand(double=double, prioritized=False)
  batch.data['next_observation'][0] = [5, 1]
  _, metrics = agent.update(state, batch)
  np.testing.assert_allclose(metrics['td_error'], (error + 3) / 2, rtol=1e-6)


def test_dueling_adds_value_and_centred_advantages():
  agent = dqn(SPEC, dataclasses.replace(SMALL, hidden_sizes=(), dueling=True))
  state = agent.init(jax.random.PRNGKey(0))
  kernels = {
    name: np.array([[1, 3], [0, 0], [0, 0]])
    if 'advantage' in name
    else np.array([[10], [0], [0]])
    for name in state.params
  }
  params = {
    name: {'w': jnp.float32(kernels[name]), 'b': jnp.zeros_like(leaves['b'])}
    for name, leaves in state.params.items()
  }
  # The TD error shows the value that each action has: without reward and future, -q.
  values = []
  for action in (0, 1):
    data = {
      'observation': np.array([[1, 7, 7]], np.float32),
      'action': np.array([action], np.int32),
      'reward': np.zeros(1, np.float32),
      'discount': np.zeros(1, np.float32),
      'next_observation': np.zeros((1, 3), np.float32),
    }
    batch = Batch(data, np.ones(1, np.float32), np.int32(1))
    values.append(agent.update(state._replace(params=params), batch)[1]['td_error'])
  np.testing.assert_allclose(values, [10 - 1, 10 + 1], rtol=1e-5)


@pytest.mark.parametrize('switches', SWITCHES)
def test_the_gradient_is_that_of_finite_differences(switches):
  # With plain SGD instead of Adam the step would be the gradient; here Adam's first
  # moment is a tenth of it after one update from zero.
  agent = dqn(SPEC, dataclasses.replace(SMALL, hidden_sizes=(4,), **switches))
  state, batch = disagreeing_state(agent), random_batch()
  update = jax.jit(agent.update)
  moment = optax.tree_utils.tree_get(update(state, batch)[0].opt_state, 'mu')
  flat, rebuild = jax.flatten_util.ravel_pytree(state.params)
  gradient = 10 * jax.flatten_util.ravel_pytree(moment)[0]
  direction = np.random.default_rng(0).normal(size=flat.shape).astype(np.float32)
  step = 1e-3 * direction / np.linalg.norm(direction)
  # The target must not move with the parameters; here it would with `double` alone,
  # through its selector, which has no gradient.
  ahead, behind = (
    update(state._replace(params=rebuild(flat + way)), batch)[1]['loss']
    for way in (step, -step)
  )
  np.testing.assert_allclose(
    float(ahead - behind) / 2, gradient @ step, rtol=0.05, atol=1e-5
  )


def test_the_gradient_is_clipped():
  agent, state, batch = by_hand(max_gradient_norm=0.1)
  free, _, _ = by_hand()
  after, metrics = agent.update(state, batch)
  unclipped, _ = free.update(state, batch)
  norm = float(metrics['gradient_norm'])
  assert norm > 0.1
  moments = [
    float(optax.global_norm(optax.tree_utils.tree_get(one.opt_state, 'mu')))
    for one in (after, unclipped)
  ]
  np.testing.assert_allclose(moments, [0.01, 0.1 * norm], rtol=1e-4)


# Importance weights.


@settings(deadline=None, max_examples=50)
@given(
  st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20),
  st.integers(1, 10**6),
  st.floats(0, 1),
)
def test_importance_weights_are_those_of_the_paper(probabilities, size, exponent):
  p = np.array(probabilities, np.float32)
  weights = importance_weights(jnp.asarray(p), jnp.int32(size), exponent)
  expected = (size * p.astype(np.float64)) ** -exponent
  np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-3)


# Updates.


def stack(batches):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def test_the_target_network_is_copied_once_a_period():
  agent = dqn(SPEC, dataclasses.replace(SMALL, target_update_period=3))
  update = jax.jit(agent.update)
  state = agent.init(jax.random.PRNGKey(0))
  same = []
  for i in range(7):
    before = state.target_params
    state, _ = update(state, random_batch(i))
    kept = jax.tree.all(jax.tree.map(np.array_equal, before, state.target_params))
    copied = jax.tree.all(
      jax.tree.map(np.array_equal, state.params, state.target_params)
    )
    same.append((kept, copied))
  assert same == [(i not in (3, 6), i in (3, 6)) for i in range(1, 8)]
  assert state.steps == 7


@pytest.mark.parametrize('prioritized', [True, False])
def test_a_scan_is_one_update_after_the_other(prioritized):
  config = dataclasses.replace(SMALL, prioritized=prioritized, target_update_period=2)
  agent = dqn(SPEC, config)
  batches = [random_batch(i) for i in range(5)]
  single = agent.init(jax.random.PRNGKey(0))
  update, metrics = jax.jit(agent.update), []
  for batch in batches:
    single, one = update(single, batch)
    metrics.append(one)
  scanned, together = jax.jit(
    lambda state, stacked: jax.lax.scan(agent.update, state, stacked)
  )(agent.init(jax.random.PRNGKey(0)), stack(batches))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    (single, stack(metrics)),
    (scanned, together),
  )
  if prioritized:
    assert together['priorities'].shape == (5, 4)
  assert together['loss'].shape == (5,)


@pytest.mark.parametrize('transform', [jax.jit, lambda f: f], ids=['jit', 'plain'])
def test_a_fresh_state_can_be_donated(transform):
  agent = dqn(SPEC, SMALL)
  state = transform(agent.init)(jax.random.PRNGKey(0))
  update = jax.jit(agent.update, donate_argnums=0)
  for _ in range(2):
    state, metrics = update(state, random_batch())
  assert np.isfinite(metrics['loss'])


def test_it_survives_cloudpickle():
  agent = dqn(SPEC, SMALL)
  again = cloudpickle.loads(cloudpickle.dumps(agent))
  key, batch = jax.random.PRNGKey(0), random_batch()
  results = []
  for one in (agent, again):
    state, metrics = one.update(one.init(key), batch)
    observation = batch.data['observation']
    acted = one.policy(one.parameters(state), one.initial_carry(4), observation, key)
    results.append((state, metrics, acted))
  jax.tree.map(np.testing.assert_array_equal, *results)
  assert again.tables == agent.tables
  assert cloudpickle.loads(cloudpickle.dumps(state)).steps == 1


# Acting.


def test_the_ladder_is_that_of_ape_x():
  ladder = epsilon_ladder(DQNConfig(epsilon=0.4, epsilon_alpha=7.0), 8)
  np.testing.assert_allclose(
    ladder, [0.4 ** (1 + i / 7 * 7) for i in range(8)], rtol=1e-5
  )
  alone = epsilon_ladder(DQNConfig(epsilon=0.4, epsilon_alpha=7.0), 1)
  np.testing.assert_allclose(alone, [0.4**4.5], rtol=1e-5)
  level = epsilon_ladder(DQNConfig(epsilon=0.1, epsilon_alpha=0.0), 3)
  np.testing.assert_allclose(level, [0.1] * 3, rtol=1e-5)


def test_each_environment_explores_with_its_own_epsilon():
  agent, state, _ = by_hand(epsilon=1.0, epsilon_alpha=0.0)
  count, observation = 2000, np.tile(np.float32([1, 9]), (2000, 1))
  carry = jnp.where(jnp.arange(count) < 1000, 1.0, 0.1)
  policy = jax.jit(agent.policy)
  action, after, _ = policy(state.params, carry, observation, jax.random.PRNGKey(0))
  assert action.dtype == jnp.int32
  assert action.shape == (count,)
  # The greedy action is 1; half of what is explored takes 0.
  assert 0.45 < np.mean(action[:1000] == 0) < 0.55
  assert 0.03 < np.mean(action[1000:] == 0) < 0.07
  np.testing.assert_array_equal(carry, after)
  again, _, _ = policy(state.params, carry, observation, jax.random.PRNGKey(0))
  other, _, _ = policy(state.params, carry, observation, jax.random.PRNGKey(1))
  assert (action == again).all()
  assert (action != other).any()


def test_the_evaluation_policy_is_greedy():
  agent, state, _ = by_hand(epsilon=1.0, epsilon_alpha=0.0)
  observation = np.array([[1, 9], [9, 1]] * 50, np.float32)
  carry = agent.initial_carry(100)
  for seed in range(5):
    key = jax.random.PRNGKey(seed)
    action, _, _ = agent.evaluation_policy(state.params, carry, observation, key)
    assert action.tolist() == [1, 0] * 50
  loose, _, _ = by_hand(evaluation_epsilon=1.0)
  action, _, _ = loose.evaluation_policy(state.params, carry, observation, key)
  assert action.tolist() != [1, 0] * 50


def test_an_actor_imports_no_tensorflow():
  code = """
import sys, jax, numpy as np
from dm_env import specs
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.dqn import dqn
spec = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(2))
agent = dqn(spec)
key = jax.random.PRNGKey(0)
params = agent.parameters(agent.init(key))
agent.policy(params, agent.initial_carry(2), np.zeros((2, 3), np.float32), key)
print([name for name in ('tensorflow', 'rlax', 'distrax') if name in sys.modules])
"""
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=100
  )
  assert result.stdout.strip() == '[]', result.stderr


# What it declares.


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
  ],
)
def test_a_value_out_of_its_range_is_refused(wrong):
  (name,) = wrong
  with pytest.raises(UsageError, match=rf'DQNConfig\.{name} is .*, expected') as caught:
    DQNConfig(**wrong)
  assert '\n' not in str(caught.value)


# And it learns.


@pytest.mark.parametrize('switches', [SWITCHES[0], SWITCHES[-1]], ids=['all', 'none'])
def test_it_learns_two_states(switches):
  """In state s action s earns 1 and leads to the other state, the other action earns 0
  and stays: playing right for ever is worth 1 / (1 - 0.5) = 2, one mistake 1."""
  spec = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(2))
  config = DQNConfig(
    hidden_sizes=(16, 16), learning_rate=1e-2, target_update_period=10, **switches
  )
  agent = dqn(spec, config)
  rng, update = np.random.default_rng(0), jax.jit(agent.update)
  state, losses = agent.init(jax.random.PRNGKey(0)), []
  for _ in range(200):
    at, action = rng.integers(0, 2, (2, 32))
    right = action == at
    batch = Batch(
      data={
        'observation': np.eye(2, dtype=np.float32)[at],
        'action': action.astype(np.int32),
        'reward': right.astype(np.float32),
        'discount': np.full(32, 0.5, np.float32),
        'next_observation': np.eye(2, dtype=np.float32)[np.where(right, 1 - at, at)],
      },
      probabilities=np.full(32, 0.01, np.float32),
      table_size=np.int32(100),
    )
    state, metrics = update(state, batch)
    losses.append(float(metrics['loss']))
  assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
  np.testing.assert_allclose(metrics['q'], 2, atol=0.15)
  both = np.eye(2, dtype=np.float32)
  action, _, _ = agent.evaluation_policy(
    state.params, agent.initial_carry(2), both, jax.random.PRNGKey(0)
  )
  assert action.tolist() == [0, 1]
