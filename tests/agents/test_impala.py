"""IMPALA's loss against V-trace written out, its switches, and what it refuses."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Batch, EnvironmentSpec
from callsheet.agents.impala import IMPALAConfig, impala
from callsheet.errors import UsageError
from tests.agents import rolled

TINY = IMPALAConfig(
  unroll_length=8,
  batch_size=4,
  queue_size=4,
  hidden_sizes=(8,),
  optimizer_epsilon=1e-3,
  max_gradient_norm=None,
)


def made(**changes):
  return impala(rolled.DISCRETE, dataclasses.replace(TINY, **changes))


def started(agent, seed=0):
  return agent.init(jax.random.PRNGKey(seed))


@pytest.fixture(scope='module')
def batch():
  """What the agent of `TINY` plays by its first parameters."""
  agent = made()
  return rolled.play(agent, agent.parameters(started(agent)))[0]


def changed(batch, **columns):
  return batch._replace(data={**batch.data, **columns})


def updated(agent, state, batch):
  # Operation by operation: the next agent's were all compiled with this one's.
  with jax.disable_jit():
    return agent.update(state, batch)


def metrics_of(agent, state, batch):
  return jax.tree.map(float, dict(updated(agent, state, batch)[1]))


@pytest.mark.parametrize('lstm_size', [None, 4])
def test_what_is_learnt_is_what_was_played(lstm_size):
  """Ratios of 1, also behind ends of episodes and in rollouts that begin within one."""
  agent = made(lstm_size=lstm_size)
  state = started(agent)
  state = state._replace(params=rolled.moved(state.params))
  batches = rolled.play(agent, agent.parameters(state), num_batches=2)
  update = jax.jit(agent.update)
  for batch in batches:
    assert not batch.data['mask'].all()
    assert float(update(state, batch)[1]['importance']) == pytest.approx(1, abs=1e-5)
  if lstm_size is not None:
    other = changed(batches[1], hidden=batches[1].data['hidden'] + 3)
    _, metrics = update(state, other)
    assert abs(metrics['importance'] - 1) > 1e-3


def written_out(config, probs, values, batch, behaviour):
  """The targets and advantages of one rollout each, by the paper's definition:
  v_s = V(x_s) + sum_t gamma^(t-s) (prod c_i) delta_t, over the steps of its episode.
  """
  data = batch.data
  mask, reward = data['mask'], data['reward'].astype(np.float64)
  discount = config.discount * data['discount'].astype(np.float64)
  chosen = np.take_along_axis(probs, data['action'][..., None], axis=-1)[..., 0]
  ratio = chosen / np.exp(behaviour)
  target, advantage = np.zeros(mask.shape), np.zeros(mask.shape)
  length = mask.shape[1]
  for b in range(len(mask)):

    def value_target(s, b=b):
      if s == length or not mask[b, s]:
        return values[b, s]
      total, product, t = values[b, s], 1.0, s
      while t < length and mask[b, t]:
        rho = min(config.clip_rho, ratio[b, t])
        delta = reward[b, t] + discount[b, t] * values[b, t + 1] - values[b, t]
        total += product * rho * delta
        product *= discount[b, t] * min(1.0, ratio[b, t])
        t += 1
      return total

    for s in range(length):
      if mask[b, s]:
        target[b, s] = value_target(s)
        ahead = reward[b, s] + discount[b, s] * value_target(s + 1)
        rho = min(config.clip_policy_rho, ratio[b, s])
        advantage[b, s] = rho * (ahead - values[b, s])
  return target, advantage


def test_the_loss_is_that_of_v_trace_written_out():
  config = dataclasses.replace(TINY, clip_rho=1.3, clip_policy_rho=1.1)
  agent = impala(rolled.DISCRETE, config)
  state, other = started(agent), started(agent, seed=5)
  # A policy that is far from even, or the ratios would all be about 1.
  params = rolled.moved(state.params)
  state = state._replace(params=params)
  [batch] = rolled.play(agent, agent.parameters(other))
  observation, mask = batch.data['observation'], batch.data['mask']
  rows = observation.reshape(-1, 3)

  def layer(name, inputs):
    return inputs @ np.asarray(params[name]['w'], np.float64) + np.asarray(
      params[name]['b'], np.float64
    )

  def torso(name):
    return np.maximum(layer(f'{name}/~/linear_0', rows), 0)

  logits = layer('policy', torso('torso')).reshape(*observation.shape[:2], 3)[:, :-1]
  values = layer('value', torso('torso_1')).reshape(observation.shape[:2])
  probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  target, advantage = written_out(config, probs, values, batch, batch.data['log_prob'])
  chosen = np.take_along_axis(probs, batch.data['action'][..., None], axis=-1)[..., 0]
  policy_loss = -(np.log(chosen) * advantage)[mask].mean()
  value_loss = 0.5 * ((target - values[:, :-1]) ** 2)[mask].mean()
  entropy = -(probs * np.log(probs)).sum(axis=-1)[mask].mean()
  found = metrics_of(agent, state, batch)
  assert found['policy_loss'] == pytest.approx(policy_loss, rel=1e-4)
  assert found['value_loss'] == pytest.approx(value_loss, rel=1e-4)
  assert found['entropy'] == pytest.approx(entropy, rel=1e-4)
  expected = policy_loss + 0.5 * value_loss - 0.01 * entropy
  assert found['loss'] == pytest.approx(expected, rel=1e-4)


def test_what_no_step_shows_changes_nothing():
  agent = made(lstm_size=4)
  state = started(agent)
  [batch] = rolled.play(agent, agent.parameters(state))
  noise = np.random.default_rng(0).normal(size=batch.data['mask'].shape)
  garbled = changed(
    batch,
    log_prob=np.where(batch.data['mask'], batch.data['log_prob'], noise).astype('f4'),
    action=np.where(batch.data['mask'], batch.data['action'], 2).astype('i4'),
    version=np.where(batch.data['mask'], batch.data['version'], 9).astype('i4'),
  )
  assert metrics_of(agent, state, garbled) == pytest.approx(
    metrics_of(agent, state, batch)
  )


def test_it_scans_over_updates_and_counts_the_lag():
  agent = made()
  state = started(agent)
  batches = rolled.play(agent, agent.parameters(state), num_batches=3)
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
  scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(agent.update, s, b))(
    state, stacked
  )
  assert metrics['policy_lag'].tolist() == [0, 1, 2]
  for batch in batches:
    state, _ = updated(agent, state, batch)
  for one, other in zip(jax.tree.leaves(scanned), jax.tree.leaves(state), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
  assert agent.parameters(state).version == 3


@pytest.mark.parametrize(
  'changes',
  [
    {'discount': 0.5},
    {'trace_decay': 0.5},
    {'clip_rho': 0.5},
    {'clip_policy_rho': 0.5},
    {'value_cost': 0.1},
    {'entropy_cost': 0.5},
    {'max_abs_reward': 0.1},
    {'optimizer': 'rmsprop'},
    {'learning_rate': 1e-4},
    {'max_gradient_norm': 0.01, 'optimizer': 'rmsprop'},
  ],
)
def test_each_switch_changes_what_is_learnt(changes, batch):
  agent, other = made(), made(**changes)
  # Not the policy that played.
  params = rolled.moved(started(agent).params)
  one, two = (
    updated(each, started(each)._replace(params=params), batch)[0].params
    for each in (agent, other)
  )
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
  assert any(not np.array_equal(a, b) for a, b in pairs)


def test_a_torso_of_its_own_for_the_value_has_more_parameters():
  count = [
    sum(leaf.size for leaf in jax.tree.leaves(started(made(shared_torso=one)).params))
    for one in (True, False)
  ]
  assert count[1] - count[0] == 3 * 8 + 8


def test_it_evaluates_by_the_likeliest_action_or_by_drawing_one():
  agent, drawing = made(), made(evaluation_greedy=False)
  params = agent.parameters(started(agent))
  moved = jax.tree.map(lambda leaf: leaf, params.network)
  moved = {**moved, 'policy': {**moved['policy'], 'b': jnp.array([0.0, 5.0, 4.0])}}
  params = params._replace(network=moved)
  observation = jnp.zeros((64, 3))
  drawn, _, _ = agent.policy(params, {}, observation, jax.random.PRNGKey(0))
  best, _, _ = agent.evaluation_policy(params, {}, observation, jax.random.PRNGKey(0))
  assert set(np.asarray(best).tolist()) == {1}
  assert {1, 2} <= set(np.asarray(drawn).tolist())
  as_acting, _, _ = drawing.evaluation_policy(
    params, {}, observation, jax.random.PRNGKey(0)
  )
  np.testing.assert_array_equal(as_acting, drawn)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('unroll_length', 0),
    ('batch_size', 0),
    ('queue_size', 2.5),
    ('lstm_size', 0),
    ('discount', 0),
    ('trace_decay', 1.1),
    ('clip_rho', 0),
    ('clip_policy_rho', -1),
    ('value_cost', -0.1),
    ('entropy_cost', float('nan')),
    ('max_abs_reward', 0),
    ('num_stacked', 0),
    ('hidden_sizes', (0,)),
    ('optimizer', 'sgd'),
    ('learning_rate', 0),
    ('optimizer_epsilon', -1),
    ('max_gradient_norm', 0),
  ],
)
def test_it_refuses_settings(name, value):
  with pytest.raises(UsageError, match=rf'IMPALAConfig\.{name} is .*, expected .*; '):
    IMPALAConfig(**{name: value})


def test_it_refuses_continuous_actions_and_pixels_into_an_mlp():
  with pytest.raises(UsageError, match=r'impala: the action is .*continuous'):
    impala(rolled.CONTINUOUS)
  pixels = specs.Array((84, 84, 4), np.uint8)
  spec = EnvironmentSpec(pixels, rolled.DISCRETE.action)
  with pytest.raises(UsageError, match=r"impala: the observation is .*torso='auto'"):
    impala(spec, IMPALAConfig(torso='mlp'))


def test_it_takes_stacked_pixels():
  pixels = specs.Array((10, 10, 4), np.uint8)
  spec = EnvironmentSpec(pixels, rolled.DISCRETE.action)
  agent = impala(spec, dataclasses.replace(TINY, num_stacked=4, torso='impala'))
  shapes = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
  columns = {
    name: jax.ShapeDtypeStruct((4, *spec.shape), spec.dtype)
    for name, spec in agent.tables[0].columns.items()
  }
  batch = Batch(columns, jnp.ones(4), jnp.int32(4))
  after, _ = jax.eval_shape(agent.update, shapes, batch)
  assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(
    lambda leaf: leaf.shape, shapes
  )
