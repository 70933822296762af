"""TD3 and DDPG against numbers worked by hand and finite differences."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from callsheet.agents.td3 import DDPGConfig, TD3Config, ddpg, td3
from tests.agents import continuous
from tests.agents.continuous import SPEC, random_batch

SMALL = TD3Config(
  hidden_sizes=(8,), batch_size=4, tau=0.1, policy_delay=3, smoothing=0.8
)
AGENT = td3(SPEC, SMALL)
UPDATE = jax.jit(AGENT.update)


@functools.cache
def disagreeing_state():
  """A state whose policies are away from 0 and whose targets are other networks."""
  init = jax.jit(AGENT.init)
  state, other = (init(jax.random.PRNGKey(i)) for i in range(2))
  return state._replace(params=_far(state.params), targets=_far(other.params))


def _far(params):
  head = jax.tree.map(lambda leaf: 50 * leaf, params.policy['policy'])
  return params._replace(policy={**params.policy, 'policy': head})


def test_the_critics_loss_is_the_one_worked_by_hand():
  state, batch = disagreeing_state(), random_batch()
  data = batch.data
  _, key = jax.random.split(state.key)
  noise = np.clip(0.8 * np.asarray(jax.random.normal(key, (4, 2))), -0.5, 0.5)
  action = np.tanh(continuous.head(state.targets.policy, data['next_observation']))
  action = np.clip(action + noise, -1, 1)
  q = continuous.values(state.targets.critics, data['next_observation'], action)
  target = data['reward'] + data['discount'] * np.minimum(q[0], q[1])
  taken = continuous.to_unit(data['action'])
  q = continuous.values(state.params.critics, data['observation'], taken)
  expected = np.mean(np.sum(0.5 * (q - target) ** 2, axis=0))
  _, metrics = UPDATE(state, batch)
  np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['q'], np.mean(q), rtol=1e-3, atol=1e-5)


def test_the_critics_gradient_is_that_of_finite_differences():
  state, batch = disagreeing_state(), random_batch()
  after, _ = UPDATE(state, batch)
  gradient = continuous.gradient(after.critics_opt_state, state.params.critics)

  def loss(critics):
    moved = state._replace(params=state.params._replace(critics=critics))
    return float(UPDATE(moved, batch)[1]['loss'])

  continuous.check_direction(loss, state.params.critics, gradient)


def test_the_policy_goes_up_the_first_critic():
  # Due at once, and judged by the critics as they are after their own step.
  state = disagreeing_state()._replace(steps=np.int32(2))
  batch = random_batch()
  after, _ = UPDATE(state, batch)
  gradient = continuous.gradient(after.policy_opt_state, state.params.policy)
  observation = batch.data['observation']

  def loss(policy):
    action = np.tanh(continuous.head(policy, observation))
    return -np.mean(continuous.values(after.params.critics, observation, action)[0])

  continuous.check_direction(loss, state.params.policy, gradient)


def test_policy_and_targets_wait_for_the_critics():
  state, changed = disagreeing_state(), []
  for _ in range(6):
    after, _ = UPDATE(state, random_batch())
    pairs = [
      (after.params.policy, state.params.policy),
      (after.targets, state.targets),
      (after.policy_opt_state, state.policy_opt_state),
      (after.params.critics, state.params.critics),
    ]
    changed.append([_differ(*pair) for pair in pairs])
    if changed[-1][0]:
      _check_polyak(after, state)
    state = after
  assert changed == [[due] * 3 + [True] for due in [False, False, True] * 2]


def _differ(some, others):
  leaves = zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True)
  return any(not np.array_equal(one, other) for one, other in leaves)


def _check_polyak(after, before):
  jax.tree.map(
    lambda new, old, online: np.testing.assert_allclose(
      new, 0.9 * old + 0.1 * online, rtol=1e-4, atol=1e-6
    ),
    after.targets,
    before.targets,
    after.params,
  )


def test_ddpg_has_one_critic_and_no_delay_and_its_target_no_noise():
  agent = ddpg(SPEC, DDPGConfig(hidden_sizes=(8,)))
  state = jax.jit(agent.init)(jax.random.PRNGKey(0))
  assert {name.split('/')[0] for name in state.params.critics} == {'critic_0'}
  update = jax.jit(agent.update)
  after, metrics = update(state, random_batch())
  assert _differ(after.params.policy, state.params.policy)
  other = state._replace(key=jax.random.PRNGKey(7))
  assert update(other, random_batch())[1]['loss'] == metrics['loss']
  smoothed = disagreeing_state()
  other = smoothed._replace(key=jax.random.PRNGKey(7))
  losses = [UPDATE(each, random_batch())[1]['loss'] for each in (smoothed, other)]
  assert losses[0] != losses[1]


@pytest.mark.parametrize('correlation', [0.0, 0.9])
def test_exploration_is_what_was_chosen(correlation):
  config = TD3Config(
    hidden_sizes=(8,), exploration=0.05, exploration_correlation=correlation
  )
  agent = td3(SPEC, config)
  observation = np.zeros((2000, 3), np.float32)
  carry, policy = agent.initial_carry(2000), jax.jit(agent.policy)
  assert carry.shape == (2000, 2) and not carry.any()
  params = disagreeing_state().params.policy, np.int32(1)
  played = agent.evaluation_policy(params, carry, observation, None)[0]
  offsets = []
  for i in range(2):
    action, carry, _ = policy(params, carry, observation, jax.random.PRNGKey(i))
    offsets.append(continuous.to_unit(action) - continuous.to_unit(played))
  found = np.corrcoef(offsets[0].ravel(), offsets[1].ravel())[0, 1]
  fresh = 0.05 * np.sqrt(1 - correlation**2)
  np.testing.assert_allclose(offsets[0].std(), fresh, rtol=0.1)
  # Of two steps, the second has the first one's share and as much that is new.
  expected = correlation / np.sqrt(1 + correlation**2)
  np.testing.assert_allclose(found, expected, atol=0.05)


def test_actors_act_at_random_until_the_first_update():
  state = disagreeing_state()
  observation = np.zeros((500, 3), np.float32)
  policy = jax.jit(AGENT.policy)
  spreads = []
  for steps in (0, 1):
    params = AGENT.parameters(state._replace(steps=np.int32(steps)))
    carry = AGENT.initial_carry(500)
    action, _, _ = policy(params, carry, observation, jax.random.PRNGKey(0))
    assert (action >= continuous.LOW).all() and (action <= continuous.HIGH).all()
    spreads.append(continuous.to_unit(action).std())
  # Of a uniform distribution on [-1, 1], and of the noise.
  np.testing.assert_allclose(spreads, [1 / np.sqrt(3), 0.1], rtol=0.15)
