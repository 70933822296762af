"""D4PG against a projection by hand and finite differences."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from callsheet.agents.d4pg import D4PGConfig, d4pg
from tests.agents import continuous
from tests.agents.continuous import SPEC, random_batch

SMALL = D4PGConfig(
  hidden_sizes=(8,),
  batch_size=4,
  tau=0.1,
  num_atoms=7,
  v_min=-1.5,
  v_max=1.5,
  prioritized=True,
  importance_exponent=0.5,
)
ATOMS = np.linspace(-1.5, 1.5, 7)
AGENT = d4pg(SPEC, SMALL)
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


def probabilities(params, observation, action):
  logits = continuous.mlp(params, 'critic_0', np.hstack([observation, action]))
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def project(probability, reward, discount):
  """Each atom's mass goes to the two that it falls between, the nearer the more."""
  projected = np.zeros(len(ATOMS))
  for atom, mass in zip(ATOMS, probability, strict=True):
    place = (np.clip(reward + discount * atom, -1.5, 1.5) + 1.5) / 0.5
    below = min(int(place), len(ATOMS) - 2)
    projected[below] += mass * (below + 1 - place)
    projected[below + 1] += mass * (place - below)
  return projected


def cross_entropies(state, batch):
  data = batch.data
  action = np.tanh(continuous.head(state.targets.policy, data['next_observation']))
  following = probabilities(state.targets.critic, data['next_observation'], action)
  taken = continuous.to_unit(data['action'])
  found = probabilities(state.params.critic, data['observation'], taken)
  wanted = [
    project(*each)
    for each in zip(following, data['reward'], data['discount'], strict=True)
  ]
  return -np.sum(wanted * np.log(found), axis=-1)


def value(policy, critic, observation):
  action = np.tanh(continuous.head(policy, observation))
  return np.mean(probabilities(critic, observation, action) @ ATOMS)


def test_projections_keep_mass_and_what_is_inside_keeps_its_mean():
  probability = np.random.default_rng(0).dirichlet(np.ones(7))
  projected = project(probability, 0.2, 0.5)
  np.testing.assert_allclose(projected.sum(), 1)
  mean = 0.2 + 0.5 * probability @ ATOMS
  np.testing.assert_allclose(projected @ ATOMS, mean)


def test_the_losses_are_those_worked_by_hand():
  state, batch = disagreeing_state(), random_batch()
  _, metrics = UPDATE(state, batch)
  entropies = cross_entropies(state, batch)
  weights = (50 * batch.probabilities) ** -0.5
  critic_loss = np.mean(entropies * weights / weights.max())
  worth = value(state.params.policy, state.params.critic, batch.data['observation'])
  np.testing.assert_allclose(metrics['priorities'], entropies, rtol=1e-4)
  np.testing.assert_allclose(metrics['critic_loss'], critic_loss, rtol=1e-4)
  np.testing.assert_allclose(metrics['q'], worth, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(metrics['loss'], critic_loss - worth, rtol=1e-4)


def test_each_loss_moves_its_own_parameters():
  state, batch = disagreeing_state(), random_batch()
  after, _ = UPDATE(state, batch)
  gradient = continuous.gradient(after.opt_state, state.params)

  def critic_loss(critic):
    moved = state._replace(params=state.params._replace(critic=critic))
    return float(UPDATE(moved, batch)[1]['critic_loss'])

  def minus_value(policy):
    return -value(policy, state.params.critic, batch.data['observation'])

  continuous.check_direction(critic_loss, state.params.critic, gradient.critic)
  continuous.check_direction(minus_value, state.params.policy, gradient.policy)


def test_targets_follow():
  state = disagreeing_state()
  after, _ = UPDATE(state, random_batch())
  jax.tree.map(
    lambda new, old, online: np.testing.assert_allclose(
      new, 0.9 * old + 0.1 * online, rtol=1e-4, atol=1e-6
    ),
    after.targets,
    state.targets,
    after.params,
  )
  assert after.steps == 1


def test_uniform_draws_have_no_weights_and_no_priorities():
  agent = d4pg(SPEC, dataclasses.replace(SMALL, prioritized=False))
  assert agent.tables[0].sampler == 'uniform'
  assert AGENT.tables[0].sampler == 'prioritized'
  state, batch = disagreeing_state(), random_batch()
  _, metrics = jax.jit(agent.update)(state, batch)
  assert 'priorities' not in metrics
  expected = np.mean(cross_entropies(state, batch))
  np.testing.assert_allclose(metrics['critic_loss'], expected, rtol=1e-4)


def test_actors_act_at_random_until_the_first_update():
  state, observation = disagreeing_state(), np.zeros((500, 3), np.float32)
  policy, spreads = jax.jit(AGENT.policy), []
  for steps in (0, 1):
    params = AGENT.parameters(state._replace(steps=np.int32(steps)))
    action, _, _ = policy(params, (), observation, jax.random.PRNGKey(0))
    assert (action >= continuous.LOW).all() and (action <= continuous.HIGH).all()
    spreads.append(continuous.to_unit(action).std(axis=0).mean())
  assert spreads[0] > 0.5 and 0 < spreads[1] <= 0.25
