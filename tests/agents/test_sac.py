"""SAC against numbers worked by hand and finite differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.sac import SACConfig, sac, temperature_loss
from callsheet.agents.squashed import SquashedGaussian
from tests.agents import continuous
from tests.agents.continuous import SPEC, random_batch

SMALL = SACConfig(hidden_sizes=(8,), batch_size=4, tau=0.1, initial_temperature=0.7)
AGENT = sac(SPEC, SMALL)
UPDATE = jax.jit(AGENT.update)


@functools.cache
def disagreeing_state():
  """A state whose policy is away from 0 and whose targets are other critics."""
  state, other = (jax.jit(AGENT.init)(jax.random.PRNGKey(i)) for i in range(2))
  head = jax.tree.map(lambda leaf: 30 * leaf, state.params.policy['policy'])
  policy = {**state.params.policy, 'policy': head}
  params = state.params._replace(policy=policy)
  return state._replace(params=params, target_critics=other.params.critics)


def act(params, observation, key):
  mean, log_std = np.split(continuous.head(params, observation), 2, axis=-1)
  log_std = np.clip(log_std, -10, 2)
  action, log_prob = SquashedGaussian(mean, log_std).sample_and_log_prob(key)
  return np.asarray(action), np.asarray(log_prob)


def losses_by_hand(state, batch):
  _, key = jax.random.split(state.key)
  policy_key, next_key = jax.random.split(key)
  data, params = batch.data, state.params
  temperature = np.exp(params.log_temperature)
  action, log_prob = act(params.policy, data['next_observation'], next_key)
  q = continuous.values(state.target_critics, data['next_observation'], action)
  soft = np.minimum(q[0], q[1]) - temperature * log_prob
  target = data['reward'] + data['discount'] * soft
  taken = continuous.to_unit(data['action'])
  q = continuous.values(params.critics, data['observation'], taken)
  critic_loss = np.mean(np.sum(0.5 * (q - target) ** 2, axis=0))
  action, log_prob = act(params.policy, data['observation'], policy_key)
  q = continuous.values(params.critics, data['observation'], action)
  policy_loss = np.mean(temperature * log_prob - np.minimum(q[0], q[1]))
  excess = -np.mean(log_prob) - -2.0
  return critic_loss, policy_loss, temperature * excess, -np.mean(log_prob)


def test_the_losses_are_those_worked_by_hand():
  state, batch = disagreeing_state(), random_batch()
  _, metrics = UPDATE(state, batch)
  critic, policy, temperature, entropy = losses_by_hand(state, batch)
  np.testing.assert_allclose(metrics['critic_loss'], critic, rtol=1e-4)
  np.testing.assert_allclose(metrics['policy_loss'], policy, rtol=1e-4)
  np.testing.assert_allclose(metrics['entropy'], entropy, rtol=1e-4)
  total = critic + policy + temperature
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-4)


@pytest.mark.parametrize('part', ['policy', 'critics'])
def test_each_loss_moves_its_own_parameters(part):
  state, batch = disagreeing_state(), random_batch()
  after, _ = UPDATE(state, batch)
  gradient = continuous.gradient(after.opt_state, state.params)
  name = 'policy_loss' if part == 'policy' else 'critic_loss'

  def loss(params):
    moved = state._replace(params=state.params._replace(**{part: params}))
    return float(UPDATE(moved, batch)[1][name])

  continuous.check_direction(loss, getattr(state.params, part), getattr(gradient, part))


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3, width=32), st.floats(-4, 4), st.floats(-4, 4))
def test_the_temperature_falls_where_there_is_more_entropy_than_wanted(
  log_temperature, entropy, target
):
  log_prob = jnp.full(3, -entropy)
  slope = jax.grad(temperature_loss)(log_temperature, log_prob, target)
  expected = np.exp(log_temperature) * (entropy - target)
  np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4)


def test_targets_follow_their_critics():
  state = disagreeing_state()
  after, _ = UPDATE(state, random_batch())
  jax.tree.map(
    lambda new, old, online: np.testing.assert_allclose(
      new, 0.9 * old + 0.1 * online, rtol=1e-4, atol=1e-6
    ),
    after.target_critics,
    state.target_critics,
    after.params.critics,
  )


def test_every_update_draws_other_actions():
  state = disagreeing_state()
  after, metrics = UPDATE(state, random_batch())
  again = state._replace(key=after.key)
  assert not np.array_equal(state.key, after.key)
  assert metrics['entropy'] != UPDATE(again, random_batch())[1]['entropy']


def test_one_critic_and_a_fixed_temperature():
  agent = sac(SPEC, SACConfig(hidden_sizes=(8,), twin=False, automatic=False))
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  assert {name.split('/')[0] for name in state.params.critics} == {'critic_0'}
  after, _ = jax.jit(agent.update)(state, random_batch())
  assert after.params.log_temperature == state.params.log_temperature == 0.0
  varied, _ = UPDATE(disagreeing_state(), random_batch())
  assert varied.params.log_temperature != np.float32(np.log(0.7))


def test_it_acts_at_random_within_bounds_and_is_played_by_its_mode():
  params, observation = disagreeing_state().params.policy, random_batch().data
  observation = np.repeat(observation['observation'], 50, axis=0)
  policy = jax.jit(AGENT.policy)
  actions = [policy(params, (), observation, jax.random.PRNGKey(i))[0] for i in (0, 1)]
  for action in actions:
    assert (action >= continuous.LOW).all() and (action <= continuous.HIGH).all()
  assert not np.array_equal(*actions)
  played = jax.jit(AGENT.evaluation_policy)(params, (), observation, None)[0]
  mean = continuous.head(params, observation)[:, :2]
  np.testing.assert_allclose(
    continuous.to_unit(played), np.tanh(mean), rtol=1e-3, atol=1e-4
  )
