"""Discrete SAC against numbers worked by hand and finite differences."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.sac_discrete import DiscreteSACConfig, sac_discrete
from tests.agents import continuous

SPEC = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(4, np.int32))
SMALL = DiscreteSACConfig(
  hidden_sizes=(8,), batch_size=4, tau=0.1, initial_temperature=0.7, entropy_share=0.5
)
AGENT = sac_discrete(SPEC, SMALL)
UPDATE = jax.jit(AGENT.update)
BATCH = continuous.random_batch()
BATCH = BATCH._replace(data={**BATCH.data, 'action': np.int32([3, 0, 1, 3])})


@functools.cache
def disagreeing_state():
  """A state whose targets are other critics."""
  init = jax.jit(AGENT.init)
  state, other = (init(jax.random.PRNGKey(i)) for i in range(2))
  return state._replace(target_critics=other.params.critics)


def values(params, observation):
  return np.stack(
    [continuous.mlp(params, f'critic_{i}', observation) for i in range(2)]
  )


def probabilities(params, observation):
  weights = np.exp(continuous.mlp(params, 'policy', observation))
  return weights / weights.sum(axis=-1, keepdims=True)


def losses_by_hand(state):
  data, params = BATCH.data, state.params
  temperature = 0.7
  critic_losses, policy_losses, entropies = [], [], []
  for i in range(4):
    following = probabilities(params.policy, data['next_observation'][i])
    q = values(state.target_critics, data['next_observation'][i])
    value = sum(
      p * (min(q[0][a], q[1][a]) - temperature * np.log(p))
      for a, p in enumerate(following)
    )
    target = data['reward'][i] + data['discount'][i] * value
    q = values(params.critics, data['observation'][i])
    for critic in q:
      critic_losses.append(0.5 * (critic[data['action'][i]] - target) ** 2)
    policy = probabilities(params.policy, data['observation'][i])
    policy_losses.append(
      sum(
        p * (temperature * np.log(p) - min(q[0][a], q[1][a]))
        for a, p in enumerate(policy)
      )
    )
    entropies.append(-np.sum(policy * np.log(policy)))
  entropy = np.mean(entropies)
  excess = entropy - 0.5 * np.log(4)
  return (
    np.sum(critic_losses) / 4,
    np.mean(policy_losses),
    temperature * excess,
    entropy,
  )


def test_the_losses_are_those_worked_by_hand():
  _, metrics = UPDATE(disagreeing_state(), BATCH)
  critic, policy, temperature, entropy = losses_by_hand(disagreeing_state())
  np.testing.assert_allclose(metrics['critic_loss'], critic, rtol=1e-4)
  np.testing.assert_allclose(metrics['policy_loss'], policy, rtol=1e-4)
  np.testing.assert_allclose(metrics['entropy'], entropy, rtol=1e-4)
  total = critic + policy + temperature
  np.testing.assert_allclose(metrics['loss'], total, rtol=1e-4)


@pytest.mark.parametrize('part', ['policy', 'critics'])
def test_each_loss_moves_its_own_parameters(part):
  state = disagreeing_state()
  after, _ = UPDATE(state, BATCH)
  gradient = continuous.gradient(after.opt_state, state.params)
  index = 1 if part == 'policy' else 0

  def loss(params):
    moved = state._replace(params=state.params._replace(**{part: params}))
    return losses_by_hand(moved)[index]

  continuous.check_direction(loss, getattr(state.params, part), getattr(gradient, part))


def test_the_temperature_goes_where_the_entropy_is_steered_to():
  state = disagreeing_state()
  even = jax.tree.map(lambda leaf: 0 * leaf, state.params.policy)
  decided = {**even, 'policy/~/linear_1': {**even['policy/~/linear_1']}}
  decided['policy/~/linear_1']['b'] = np.float32([9, 0, 0, 0])
  moved = []
  for policy in (even, decided):
    before = state._replace(params=state.params._replace(policy=policy))
    after, _ = UPDATE(before, BATCH)
    moved.append(after.params.log_temperature - state.params.log_temperature)
  assert moved[0] < 0 < moved[1]


def test_targets_follow_their_critics():
  state = disagreeing_state()
  after, _ = UPDATE(state, BATCH)
  jax.tree.map(
    lambda new, old, online: np.testing.assert_allclose(
      new, 0.9 * old + 0.1 * online, rtol=1e-4, atol=1e-6
    ),
    after.target_critics,
    state.target_critics,
    after.params.critics,
  )


def test_one_critic_and_a_fixed_temperature():
  config = DiscreteSACConfig(hidden_sizes=(8,), twin=False, automatic=False)
  agent = sac_discrete(SPEC, config)
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  assert {name.split('/')[0] for name in state.params.critics} == {'critic_0'}
  after, _ = jax.jit(agent.update)(state, BATCH)
  assert after.params.log_temperature == state.params.log_temperature == 0.0


def test_it_acts_by_its_probabilities_and_is_played_by_the_largest():
  params = jax.tree.map(lambda leaf: 2 * leaf, disagreeing_state().params.policy)
  observation = np.repeat(BATCH.data['observation'][:1], 5000, axis=0)
  action, _, _ = jax.jit(AGENT.policy)(params, (), observation, jax.random.PRNGKey(0))
  assert action.dtype == np.int32
  expected = probabilities(params, observation[0])
  np.testing.assert_allclose(
    np.bincount(action, minlength=4) / 5000, expected, atol=0.03
  )
  played, _, _ = jax.jit(AGENT.evaluation_policy)(params, (), observation[:1], None)
  assert played.tolist() == [np.argmax(expected)]
