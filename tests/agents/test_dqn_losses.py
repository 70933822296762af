"""DQN's loss against rlax, and against numbers worked by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Batch
from callsheet.agents.dqn import dqn, importance_weights
from tests.agents.small_dqn import SMALL, SPEC, by_hand, random_batch

# Each switch against the default, one by one.
SWITCHES = [
  {},
  {'double': False},
  {'dueling': True},
  {'prioritized': False},
  {'huber_delta': None},
]


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


@pytest.mark.parametrize(
  'switches', [{'dueling': True}, {'distribution': 'quantile', 'num_quantiles': 3}]
)
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
