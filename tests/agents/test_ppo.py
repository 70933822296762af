"""PPO: what it plays is what it learns from; its statistics; what it refuses."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.actions import Bounds
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.distributions import Gaussian
from callsheet.agents.ppo import PPOConfig, ppo
from callsheet.errors import UsageError
from tests.agents import rolled

TINY = PPOConfig(
  rollout_length=8,
  batch_size=4,
  queue_size=4,
  num_epochs=1,
  num_minibatches=1,
  hidden_sizes=(8,),
  normalize_observations=False,
)


def made(spec=rolled.DISCRETE, **changes):
  return ppo(spec, dataclasses.replace(TINY, **changes))


def started(agent, seed=0):
  return jax.jit(agent.init)(jax.random.PRNGKey(seed))


@pytest.mark.parametrize(
  ('spec', 'lstm_size'),
  [(rolled.DISCRETE, 4), (rolled.CONTINUOUS, None)],
)
def test_what_is_learnt_is_what_was_played(spec, lstm_size):
  """Ratios of 1, also behind ends of episodes and in rollouts that begin within one."""
  agent = made(spec, lstm_size=lstm_size)
  state, update = started(agent), jax.jit(agent.update)
  state = state._replace(params=rolled.moved(state.params))
  for batch in rolled.play(agent, agent.parameters(state), num_batches=2):
    assert not batch.data['mask'].all()
    metrics = update(state, batch)[1]
    assert metrics['kl'] == pytest.approx(0, abs=1e-6)
    assert metrics['clipped'] == 0
    # The advantages have mean 0, so only ratios of 1 make that of nothing.
    assert metrics['policy_loss'] == pytest.approx(0, abs=1e-5)
  if lstm_size is not None:
    data = {**batch.data, 'cell': batch.data['cell'] + 3}
    assert update(state, batch._replace(data=data))[1]['kl'] > 1e-5


def test_continuous_actions_are_cut_off_behind_their_density():
  agent = made(rolled.CONTINUOUS, initial_std=3.0)
  bounds = Bounds.of('ppo', rolled.CONTINUOUS)
  params = agent.parameters(started(agent))
  observation = np.zeros((50, 3), np.float32)
  action, _, extras = agent.policy(params, {}, observation, jax.random.PRNGKey(0))
  drawn = np.asarray(extras['drawn'])
  assert (np.abs(drawn) > 1).any()
  np.testing.assert_allclose(action, bounds.from_unit(drawn))
  assert ((bounds.low <= action) & (action <= bounds.high)).all()
  # All biases are 0, and so are these observations.
  log_std = np.full((50, 2), np.log(3.0), np.float32)
  expected = Gaussian(np.zeros((50, 2), np.float32), log_std).log_prob(drawn)
  np.testing.assert_allclose(extras['log_prob'], expected, rtol=1e-5)
  best, _, _ = agent.evaluation_policy(params, {}, observation, jax.random.PRNGKey(0))
  np.testing.assert_allclose(best, np.broadcast_to([1.0, 0.25], (50, 2)), atol=1e-6)


def test_observations_and_values_are_normalized():
  agent = made(normalize_observations=True, num_epochs=2, num_minibatches=4)
  plain = made(num_epochs=2, num_minibatches=4)
  state, update = started(agent), jax.jit(agent.update)
  first, second = rolled.play(agent, agent.parameters(state), num_batches=2)
  state, _ = update(state, first)
  seen = first.data['observation'][:, :-1].reshape(-1, 3)
  np.testing.assert_allclose(state.observations.mean, seen.mean(axis=0), atol=1e-5)
  np.testing.assert_allclose(state.observations.variance, seen.var(axis=0), rtol=1e-4)
  assert state.values.number == first.data['mask'].sum()
  state, _ = update(state, second)
  assert state.observations.number == 2 * len(seen)
  params = agent.parameters(state)
  normal = (seen[:5] - state.observations.mean) / state.observations.std
  unnormalized = params._replace(observations=started(plain).observations)
  _, _, extras = agent.policy(params, {}, seen[:5], jax.random.PRNGKey(1))
  _, _, same = plain.policy(unnormalized, {}, normal, jax.random.PRNGKey(1))
  np.testing.assert_allclose(extras['log_prob'], same['log_prob'], rtol=1e-5)


def test_it_scans_over_updates_as_they_come():
  agent = made(num_epochs=2, num_minibatches=2)
  state, update = started(agent), jax.jit(agent.update)
  batches = rolled.play(agent, agent.parameters(state), num_batches=2)
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
  scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(agent.update, s, b))(
    state, stacked
  )
  assert metrics['policy_lag'].tolist() == [0, 1]
  for batch in batches:
    state, _ = update(state, batch)
  for one, other in zip(jax.tree.leaves(scanned), jax.tree.leaves(state), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
  assert agent.parameters(state).version == 2


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('rollout_length', 0),
    ('batch_size', 0),
    ('queue_size', 0),
    ('num_epochs', 0),
    ('num_minibatches', 0),
    ('num_minibatches', 3),
    ('lstm_size', 0),
    ('discount', 0),
    ('trace_decay', -0.1),
    ('clip_ratio', 0),
    ('clip_value', 0),
    ('value_cost', -1),
    ('entropy_cost', -1),
    ('initial_std', 0),
    ('num_stacked', 0),
    ('hidden_sizes', (0,)),
    ('learning_rate', 0),
    ('adam_epsilon', -1),
    ('max_gradient_norm', 0),
  ],
)
def test_it_refuses_settings(name, value):
  with pytest.raises(UsageError, match=rf'PPOConfig\.{name} is .*, expected .*; '):
    PPOConfig(**{name: value})


def test_an_lstm_learns_from_whole_rollouts():
  with pytest.raises(UsageError, match='a divisor of batch_size, 4'):
    PPOConfig(lstm_size=4, batch_size=4, num_minibatches=8)
  assert PPOConfig(batch_size=4, num_minibatches=8).num_minibatches == 8


def test_it_refuses_actions_without_bounds_and_pixels_into_an_mlp():
  unbounded = specs.Array((2,), np.float32)
  with pytest.raises(UsageError, match=r'ppo: the action .* has no finite bounds'):
    ppo(EnvironmentSpec(rolled.OBSERVATION, unbounded))
  several = specs.BoundedArray((2,), np.int32, 0, 3)
  with pytest.raises(UsageError, match=r'ppo: the action is .*, expected'):
    ppo(EnvironmentSpec(rolled.OBSERVATION, several))
  pixels = EnvironmentSpec(specs.Array((84, 84, 4), np.uint8), rolled.DISCRETE.action)
  with pytest.raises(UsageError, match=r"ppo: the observation is .*torso='auto'"):
    ppo(pixels, PPOConfig(torso='mlp'))


def test_pixels_are_left_to_the_torso():
  pixels = EnvironmentSpec(specs.Array((10, 10, 4), np.uint8), rolled.DISCRETE.action)
  agent = ppo(pixels, dataclasses.replace(TINY, normalize_observations=True))
  state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
  assert state.observations.mean.shape == ()
  assert jnp.issubdtype(agent.tables[0].columns['observation'].dtype, np.uint8)
