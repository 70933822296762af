"""Heads of values: noise, distributions, and that dueling streams add up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Batch, EnvironmentSpec
from callsheet.agents.dqn import DQNConfig, dqn
from callsheet.agents.q_networks import atoms, midpoints, q_network
from tests.agents.small_dqn import SPEC

OBSERVATION = np.array([[1.0, -2.0, 0.5]], np.float32)


def made(num_actions=2, **switches):
  config = DQNConfig(**{'hidden_sizes': (), 'num_atoms': 5, **switches})
  network = q_network(config, num_actions, lambda inputs: inputs)
  params = network.init(jax.random.PRNGKey(0), OBSERVATION)
  return config, network, params


# Noise.


def test_noise_has_its_mean_and_variance():
  """One linear layer of 3 inputs x. With f(e) = sign(e) sqrt|e| of normal e, E[f] is 0
  and E[f^2] = E|e| = sqrt(2 / pi). An output's variance is that of sum_i s x_i f_i f_j
  and of s f_j: s^2 |x|^2 (2 / pi) + s^2 sqrt(2 / pi), s = 0.9 / sqrt(3)."""
  _, network, params = made(noisy=True, noise_scale=0.9)
  keys = jax.random.split(jax.random.PRNGKey(1), 20_000)
  drawn = jax.vmap(lambda key: network.values(params, key, OBSERVATION, 1).q[0])(keys)
  (layer,) = params.values()
  means = OBSERVATION[0] @ np.asarray(layer['w']) + np.asarray(layer['b'])
  variance = 0.9**2 / 3 * ((OBSERVATION**2).sum() * 2 / np.pi + np.sqrt(2 / np.pi))
  np.testing.assert_allclose(drawn.mean(axis=0), means, atol=0.03)
  np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.05)
  # Without a key there is none.
  alone = network.values(params, None, OBSERVATION, 1).q[0]
  np.testing.assert_allclose(alone, means, rtol=1e-5)


def test_weights_begin_as_in_the_paper():
  _, _, params = made(num_actions=200, noisy=True, noise_scale=0.5)
  (layer,) = params.values()
  bound = 1 / np.sqrt(3)
  assert 0.95 * bound < np.abs(layer['w']).max() <= bound
  np.testing.assert_allclose(layer['w'].var(), bound**2 / 3, rtol=0.1)
  np.testing.assert_allclose(layer['w_scale'], 0.5 * bound, rtol=1e-6)
  np.testing.assert_allclose(layer['b_scale'], 0.5 * bound, rtol=1e-6)


def test_noise_is_one_for_a_batch_and_another_for_each_key():
  _, network, params = made(noisy=True, hidden_sizes=(4,))
  twice = np.repeat(OBSERVATION, 2, axis=0)
  first, second = (
    network.values(params, jax.random.PRNGKey(seed), twice, 1).q for seed in (0, 1)
  )
  np.testing.assert_allclose(first[0], first[1], rtol=1e-6)
  assert not np.allclose(first, second)


def test_noise_explores_for_each_environment_and_not_in_evaluation():
  config = DQNConfig(hidden_sizes=(), noisy=True, epsilon=0.0)
  agent = dqn(SPEC, config)
  params = jax.jit(agent.init)(jax.random.PRNGKey(0)).params
  observation = np.repeat(OBSERVATION, 200, axis=0)
  carry = agent.initial_carry(200)
  policy, evaluation = jax.jit(agent.policy), jax.jit(agent.evaluation_policy)
  keys = [jax.random.PRNGKey(seed) for seed in range(2)]
  # Both values are alike but for their noise, so either action is taken by some.
  equal = jax.tree.map(jnp.copy, params)
  for layer in equal.values():
    layer['w'], layer['b'] = 0 * layer['w'], 0 * layer['b']
  first, second = (policy(equal, carry, observation, key)[0] for key in keys)
  assert 0.3 < first.mean() < 0.7
  assert (first != second).any()
  chosen = [evaluation(params, carry, observation, key)[0] for key in keys]
  assert len(set(np.concatenate(chosen).tolist())) == 1


def test_the_passes_of_an_update_have_noise_of_their_own():
  """One action, and a step that leads back to where it began at no reward: the error is
  the difference between two draws of the same value."""
  spec = EnvironmentSpec(SPEC.observation, specs.DiscreteArray(1))
  batch = Batch(
    data={
      'observation': OBSERVATION,
      'action': np.zeros(1, np.int32),
      'reward': np.zeros(1, np.float32),
      'discount': np.ones(1, np.float32),
      'next_observation': OBSERVATION,
    },
    probabilities=np.ones(1, np.float32),
    table_size=np.int32(1),
  )
  errors = {}
  for noisy in (False, True):
    agent = dqn(spec, DQNConfig(hidden_sizes=(), noisy=noisy, learning_rate=1e-9))
    state, update = agent.init(jax.random.PRNGKey(0)), jax.jit(agent.update)
    state, first = update(state, batch)
    _, second = update(state, batch)
    errors[noisy] = [float(first['td_error']), float(second['td_error'])]
  np.testing.assert_allclose(errors[False], 0, atol=1e-5)
  assert min(errors[True]) > 1e-3
  assert errors[True][0] != errors[True][1]


# Distributions.


def test_categorical_values_are_means_of_atoms():
  config, network, params = made(distribution='categorical', v_min=-1.0, v_max=3.0)
  np.testing.assert_allclose(atoms(config), [-1, 0, 1, 2, 3])
  values = network.values(params, None, OBSERVATION, 1)
  logits = np.asarray(values.logits, np.float64)
  assert logits.shape == (1, 2, 5)
  weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(values.q, weights @ [-1, 0, 1, 2, 3], rtol=1e-5)


def test_quantiles_lie_at_midpoints():
  _, network, params = made(distribution='quantile', num_quantiles=4)
  values = network.values(params, None, OBSERVATION, 1)
  np.testing.assert_allclose(values.taus, [[0.125, 0.375, 0.625, 0.875]])
  assert values.quantiles.shape == (1, 4, 2)
  np.testing.assert_allclose(values.q, np.mean(values.quantiles, axis=1), rtol=1e-6)


def test_implicit_quantiles_are_sampled_and_evaluated_risk_neutrally():
  _, network, params = made(distribution='implicit', embedding_size=8)
  fixed = network.values(params, None, OBSERVATION, 3)
  np.testing.assert_allclose(fixed.taus, [midpoints(3)])
  assert fixed.quantiles.shape == (1, 3, 2)
  # The quantiles depend on where they lie: it is their mean that evaluation takes.
  assert np.ptp(fixed.quantiles, axis=1).min() > 0.01
  np.testing.assert_allclose(fixed.q, np.mean(fixed.quantiles, axis=1), rtol=1e-6)
  # And that is the mean over all probabilities, as the samples' is.
  whole = network.values(params, None, OBSERVATION, 500).q[0]
  keys = jax.random.split(jax.random.PRNGKey(1), 2000)
  sampled = jax.vmap(lambda key: network.values(params, key, OBSERVATION, 8))(keys)
  assert sampled.taus.min() >= 0 and sampled.taus.max() < 1
  np.testing.assert_allclose(sampled.taus.mean(), 0.5, atol=0.01)
  deviation = np.asarray(sampled.q[:, 0]).std(axis=0)
  assert deviation.min() > 0
  offset = np.abs(sampled.q[:, 0].mean(axis=0) - whole)
  assert (offset < 4 * deviation / np.sqrt(2000)).all()


@pytest.mark.parametrize(
  'distribution', ['none', 'categorical', 'quantile', 'implicit']
)
@pytest.mark.parametrize('noisy', [True, False])
def test_what_all_advantages_share_changes_nothing(distribution, noisy):
  _, network, params = made(distribution=distribution, noisy=noisy, dueling=True)
  before = network.values(params, None, OBSERVATION, 3)
  assert any(name.startswith('value') for name in params)
  shifted = {
    name: {**layer, 'b': layer['b'] + (name.startswith('advantage') * 7.0)}
    for name, layer in params.items()
  }
  after = network.values(shifted, None, OBSERVATION, 3)
  np.testing.assert_allclose(before.q, after.q, rtol=1e-3, atol=1e-4)
  # But what the value says does.
  shifted = {
    name: {**layer, 'b': layer['b'] + jnp.arange(layer['b'].size) * 0.5 + 0.5}
    if name.startswith('value')
    else layer
    for name, layer in params.items()
  }
  assert not np.allclose(before.q, network.values(shifted, None, OBSERVATION, 3).q)
