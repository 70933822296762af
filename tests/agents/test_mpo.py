"""MPO and DMPO: the critic, the targets, and what can be chosen."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import mpo as mpo_agent
from callsheet.agents import mpo_losses, registry
from callsheet.agents.base import Batch, EnvironmentSpec, Limiter, NStep, Sampling
from callsheet.agents.mpo import DMPOConfig, Learnt, MPOConfig, MPOState, dmpo, mpo
from callsheet.agents.mpo_losses import Bounded, positive
from callsheet.agents.mpo_networks import expected_values

ACTION = specs.BoundedArray((2,), np.float32, [-1, 0], [3, 10])
SPEC = EnvironmentSpec(specs.Array((3,), np.float32), ACTION)
# For what runs but once.
QUICKLY = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
SMALL = MPOConfig(
  policy_sizes=(8,),
  critic_sizes=(8,),
  num_samples=3,
  batch_size=4,
  num_atoms=5,
  policy_update_period=2,
  critic_update_period=3,
)


def random_batch(seed=0, size=4):
  rng = np.random.default_rng(seed)
  low, high = ACTION.minimum, ACTION.maximum
  return Batch(
    data={
      'observation': rng.normal(size=(size, 3)).astype(np.float32),
      'action': rng.uniform(low, high, (size, 2)).astype(np.float32),
      'reward': rng.normal(size=size).astype(np.float32),
      'discount': rng.choice([0.0, 0.97], size).astype(np.float32),
      'next_observation': rng.normal(size=(size, 3)).astype(np.float32),
    },
    probabilities=np.full(size, 0.02, np.float32),
    table_size=np.int32(50),
  )


def once(function, *given):
  """Its results, compiled in little time."""
  return jax.jit(function).lower(*given).compile(QUICKLY)(*given)


@functools.cache
def initial():
  return once(mpo(SPEC, SMALL).init, jax.random.PRNGKey(0))


@functools.cache
def updated(times):
  """The states before, between and after so many updates."""
  states = [initial()]
  update = jax.jit(mpo(SPEC, SMALL).update)
  update = update.lower(states[0], random_batch()).compile(QUICKLY)
  for seed in range(times):
    states.append(update(states[-1], random_batch(seed))[0])
  return states


def metrics_of(config):
  """Those of an update in a state of random numbers."""
  agent = mpo(SPEC, config)
  shapes = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
  rng = np.random.default_rng(0)
  learnt, policy, critic = jax.tree.map(
    lambda shape: rng.normal(size=shape.shape).astype(np.float32),
    (shapes.learnt, shapes.target_policy, shapes.target_critic),
  )
  state = MPOState(
    learnt,
    policy,
    critic,
    jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes.opt_state),
    np.zeros(2, np.uint32),
    np.int32(0),
  )
  metrics = once(lambda *given: agent.update(*given)[1], state, random_batch())
  return {name: float(value) for name, value in metrics.items()}


def equal(one, other):
  return all(
    np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


# The critic.


def test_expected_values():
  atoms = jnp.array([-2.0, 0.0, 4.0])
  logits = jnp.log(jnp.array([[0.25, 0.25, 0.5], [1.0, 1.0, 0.0]]))
  np.testing.assert_allclose(expected_values(atoms, logits), [1.5, -1.0], rtol=1e-5)
  np.testing.assert_array_equal(
    expected_values(None, jnp.array([[3.0], [4.0]])), [3, 4]
  )


def test_the_target_is_the_mean_value_of_the_samples():
  # Values of two samples in each of two states; the second one ends the episode.
  next_outputs = jnp.array([[[1.0], [9.0]], [[3.0], [9.0]]])
  losses = once(
    functools.partial(mpo_agent.critic_losses, None),
    jnp.array([[1.0], [1.0]]),
    next_outputs,
    jnp.array([0.5, 0.5]),
    jnp.array([0.5, 0.0]),
  )
  # Half the squares of 0.5 + 0.5 * 2 - 1 and 0.5 - 1.
  np.testing.assert_allclose(losses, [0.125, 0.125], rtol=1e-6)


def test_the_target_distribution_is_the_mixture_of_the_samples():
  atoms = jnp.array([0.0, 1.0, 2.0])
  sure = 50.0  # Logits of one atom, all but certain.
  next_outputs = sure * jnp.array([[[1.0, 0, 0]], [[0, 0, 1.0]]])
  probabilities = np.array([0.2, 0.3, 0.5])
  losses = mpo_agent.critic_losses
  [loss] = once(
    losses,
    atoms,
    jnp.log(jnp.array([probabilities])),
    next_outputs,
    jnp.ones(1),
    jnp.ones(1),
  )
  # Half of it moves from 0 to 1; what goes from 2 to 3 is held at 2.
  expected = -(0.5 * np.log(0.3) + 0.5 * np.log(0.5))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  [loss] = once(
    losses,
    atoms,
    jnp.log(jnp.array([probabilities])),
    next_outputs,
    jnp.array([0.25]),
    jnp.zeros(1),
  )
  # A return of 0.25 for sure is shared between its two neighbours.
  expected = -(0.75 * np.log(0.2) + 0.25 * np.log(0.3))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


# Targets and state.


def test_each_target_is_copied_in_its_own_period():
  for before, after in itertools.pairwise(updated(6)):
    assert not equal(before.learnt.policy, after.learnt.policy)
    assert not equal(before.learnt.critic, after.learnt.critic)
    steps = int(after.steps)
    source = after.learnt.policy if steps % 2 == 0 else before.target_policy
    assert equal(after.target_policy, source)
    source = after.learnt.critic if steps % 3 == 0 else before.target_critic
    assert equal(after.target_critic, source)
    assert not np.array_equal(before.key, after.key)


def test_updates_scan_to_the_same_numbers():
  update = mpo(SPEC, SMALL).update
  batches = jax.tree.map(lambda *leaves: np.stack(leaves), *map(random_batch, range(6)))
  scanned = once(lambda *given: jax.lax.scan(update, *given)[0], initial(), batches)
  leaves = zip(jax.tree.leaves(scanned), jax.tree.leaves(updated(6)[-1]), strict=True)
  for a, b in leaves:
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('clip', [None, 1e-9])
def test_each_part_has_its_learning_rate_and_its_own_clipping(clip):
  config = MPOConfig(
    policy_learning_rate=1e-4,
    critic_learning_rate=1e-3,
    dual_learning_rate=1e-2,
    max_gradient_norm=clip,
  )
  optimizer = mpo_agent._optimizer(config)
  gradients = Learnt({'w': jnp.ones(3)}, {'w': -jnp.ones(2)}, jnp.ones(1))
  updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
  # Adam's first step is its learning rate; one that is clipped to far below its
  # epsilon, 1e-8, is less than a tenth of that. Duals are never clipped.
  policy, critic = -updates.policy['w'][0] / 1e-4, updates.critic['w'][0] / 1e-3
  if clip is None:
    np.testing.assert_allclose([policy, critic], 1, rtol=1e-3)
  else:
    assert 0 < policy < 0.1 and 0 < critic < 0.1
  np.testing.assert_allclose(updates.duals, -1e-2, rtol=1e-3)


# What can be chosen.


def test_every_switch_changes_what_it_is_about():
  usual = metrics_of(SMALL)
  for name, value, changed in (
    ('distributional', True, 'critic_loss'),
    ('action_penalty', False, 'loss'),
    ('tanh_mean', True, 'kl_mean'),
    ('layer_norm', False, 'critic_loss'),
    ('per_dimension', False, 'kl_mean'),
    ('num_samples', 5, 'policy_loss'),
  ):
    metrics = metrics_of(dataclasses.replace(SMALL, **{name: value}))
    assert np.isfinite(list(metrics.values())).all(), name
    assert metrics[changed] != pytest.approx(usual[changed], rel=1e-3), name
    assert ('out_of_bounds' in metrics) == (name != 'action_penalty')


def test_the_bounds_are_those_of_the_config(monkeypatch):
  seen = []
  policy_loss = mpo_losses.policy_loss

  def watched(bounds, *given, **options):
    seen.append(bounds)
    return policy_loss(bounds, *given, **options)

  monkeypatch.setattr(mpo_losses, 'policy_loss', watched)
  config = dataclasses.replace(
    SMALL, epsilon=0.1, epsilon_penalty=0.2, epsilon_mean=0.3, epsilon_stddev=0.4
  )
  jax.eval_shape(mpo(SPEC, config).update, initial(), random_batch())
  assert seen == [Bounded(improvement=0.1, penalty=0.2, mean=0.3, stddev=0.4)]


@pytest.mark.parametrize('per_dimension', [True, False])
def test_the_duals_begin_as_configured(per_dimension):
  config = MPOConfig(
    per_dimension=per_dimension,
    initial_temperature=1.0,
    initial_penalty_temperature=2.0,
    initial_multiplier_mean=3.0,
    initial_multiplier_stddev=4.0,
  )
  prices = jax.tree.map(positive, mpo_agent._initial_duals(config, 2))
  for price, expected in zip(prices, (1, 2, 3, 4), strict=True):
    np.testing.assert_allclose(price, np.full(price.shape, expected), rtol=1e-5)
  assert prices.mean.shape == prices.stddev.shape == ((2,) if per_dimension else ())


# Acting.


@pytest.mark.parametrize('tanh_mean', [True, False])
def test_actions_are_within_bounds_and_vary_about_the_mean(tanh_mean):
  config = dataclasses.replace(SMALL, tanh_mean=tanh_mean, initial_stddev=2.0)
  agent = mpo(SPEC, config)
  params = agent.parameters(initial())
  observation = np.zeros((64, 3), np.float32)
  given = (params, (), observation, jax.random.PRNGKey(1))
  action, carry, extras = once(agent.policy, *given)
  assert action.shape == (64, 2) and carry == extras == ()
  assert (action >= ACTION.minimum).all() and (action <= ACTION.maximum).all()
  # So wide a policy reaches both bounds, which are not beyond.
  np.testing.assert_array_equal(action.min(axis=0), ACTION.minimum)
  np.testing.assert_array_equal(action.max(axis=0), ACTION.maximum)
  greedy, *_ = once(agent.evaluation_policy, *given)
  # Before it learns, the mean is in the middle.
  np.testing.assert_allclose(greedy, np.tile([1, 5], (64, 1)), atol=1e-3)


def test_what_it_writes_and_samples():
  agent = mpo(SPEC, dataclasses.replace(SMALL, n_step=3, samples_per_insert=2.0))
  assert agent.writes == NStep('transitions', 3, 0.99)
  assert agent.samples == Sampling('transitions', 4)
  [table] = agent.tables
  assert table.limiter == Limiter(1000, 2.0)
  assert table.columns['action'].shape == (2,)
  assert agent.initial_carry(3) == ()


def test_a_torso_of_ones_own_is_in_policy_and_critic():
  def torso(observation):
    return hk.Linear(7, name='own')(observation)

  agent = mpo(SPEC, SMALL, torso=torso)
  learnt = jax.eval_shape(agent.init, jax.random.PRNGKey(0)).learnt
  assert learnt.policy['own']['w'].shape == learnt.critic['own']['w'].shape == (3, 7)


def test_images_go_through_convolutions_and_share_frames():
  spec = EnvironmentSpec(specs.Array((10, 10, 4), np.uint8), ACTION)
  agent = mpo(spec, SMALL)
  learnt = jax.eval_shape(agent.init, jax.random.PRNGKey(0)).learnt
  assert any('conv' in name for name in learnt.policy)
  assert any('conv' in name for name in learnt.critic)
  assert agent.tables[0].steps is not None


# The presets.


def test_the_presets_differ_in_the_critic():
  assert registry.find('mpo').make(SPEC).name == 'mpo'
  agent = registry.find('dmpo').make(SPEC)
  assert agent.name == 'dmpo' and agent.config['distributional']
  config = DMPOConfig(critic_sizes=(8,), num_atoms=5)
  critic = jax.eval_shape(dmpo(SPEC, config).init, jax.random.PRNGKey(0)).learnt.critic
  assert critic['value']['b'].shape == (5,)
