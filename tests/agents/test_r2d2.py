"""R2D2 as a whole: acting, learning from what was stored, and what it refuses."""

from __future__ import annotations

import dataclasses

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from dm_env import specs

from callsheet.agents import networks, recurrent_q
from callsheet.agents.base import Batch, EnvironmentSpec, Limiter, Sampling, Sequences
from callsheet.agents.r2d2 import R2D2Config, r2d2
from callsheet.errors import UsageError
from callsheet.nodes.actor import make_writer
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.playing import jit_acting
from tests.agents.test_sequence_errors import FIRST, MID, random_sequences

SPEC = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(3, np.int32))
SMALL = R2D2Config(
  burn_in_length=2,
  unroll_length=3,
  period=2,
  hidden_sizes=(8, 8),
  lstm_size=4,
  batch_size=3,
  n_step=2,
  max_gradient_norm=None,
  # So large that a step of Adam shows the gradient and not only its sign.
  adam_epsilon=1.0,
  epsilon=0.0,
  min_replay_size=1,
)


def agent_of(**changes):
  return r2d2(SPEC, dataclasses.replace(SMALL, **changes))


def network_of(config=SMALL):
  torso = networks.torso('test', SPEC.observation, 'auto', config.hidden_sizes[:-1])
  return recurrent_q.network(torso, 3, config.lstm_size, config.hidden_sizes[-1:])


STEP = jax.jit(network_of().apply)


def one_by_one(params, observation, before, state):
  """Values `[T, A]` and states, of a single environment, step by step."""
  values, states = [], []
  for seen, taken in zip(observation, before, strict=True):
    states.append(state)
    value, state = STEP(params, seen[None, None], taken[None, None], state)
    values.append(np.asarray(value)[0, 0])
  return np.stack(values), [*states, state]


def disagreeing_state(agent):
  init = jax.jit(agent.init)
  other = init(jax.random.PRNGKey(1)).params
  return init(jax.random.PRNGKey(0))._replace(target_params=other)


def batch_of(lengths, longest=5, seed=0, first=False):
  _, _, data = random_sequences(lengths, longest=longest, seed=seed, first=first)
  rng = np.random.default_rng(~seed + 2**17)
  size = len(lengths)
  data['observation'] = rng.normal(size=(size, longest + 1, 2)).astype(np.float32)
  for name in ('hidden', 'cell'):
    data[name] = rng.normal(size=(size, longest, 4)).astype(np.float32)
  data['previous_action'] = rng.integers(-1, 3, (size, longest)).astype(np.int32)
  probabilities = rng.uniform(0.01, 0.2, size).astype(np.float32)
  return Batch(data, probabilities, np.int32(50))


def sequence_of(data, i, name):
  """Of sequence i: the actions before its rows, or its first stored state."""
  if name == 'state':
    return hk.LSTMState(data['hidden'][i, :1], data['cell'][i, :1])
  return np.concatenate([data['previous_action'][i, :1], data['action'][i]])


# Acting, and what is stored.


class Counting(dm_env.Environment):
  """Episodes of `length` steps, with observations that don't repeat."""

  def __init__(self, length):
    self._length, self._time, self._count = length, None, 0

  def reset(self):
    self._time = 0
    return dm_env.restart(self._show())

  def step(self, action):
    if self._time is None:
      return self.reset()
    self._time += 1
    if self._time == self._length:
      self._time = None
      return dm_env.termination(1.0, self._show())
    return dm_env.transition(1.0, self._show())

  def _show(self):
    self._count += 1
    return np.sin([self._count, 2.0 * self._count]).astype(np.float32)

  def observation_spec(self):
    return SPEC.observation

  def action_spec(self):
    return SPEC.action


def played(agent, params, steps):
  """Sequences of environments whose episodes have 4 and 7 steps, as a replay has them,
  and of each the actions, by the environment's first observation value.
  """
  from callsheet.nodes.environments import DmEnvVector

  environment = DmEnvVector([Counting(4), Counting(7)])
  act, writer = jit_acting(agent), make_writer(agent)
  carry, key = agent.initial_carry(2), jax.random.PRNGKey(0)
  time_step = environment.reset()
  for _ in range(steps):
    before, first = time_step, time_step.step_type == FIRST
    action, carry, key, extras = act(params, carry, before.observation, first, key)
    time_step = environment.step(np.asarray(action))
    writer.observe(before, np.asarray(action), time_step, extras)
  [table] = agent.tables
  replay = NativeReplay([dataclasses.replace(table, limiter=Limiter(1))])
  replay.append(table.name, 'actor', writer.take(), fresh=True, timeout=10.0)
  sample = replay.sample(table.name, 64, timeout=10.0)
  return jax.tree.map(lambda leaf: leaf[0], sample.batch).data


def test_an_unroll_from_the_stored_state_is_what_the_actor_did():
  agent = agent_of(burn_in_length=2, unroll_length=3, period=2)
  params = jax.jit(agent.init)(jax.random.PRNGKey(3)).params
  data = played(agent, params, 40)
  data = {name: jnp.asarray(column) for name, column in data.items()}
  values = jax.jit(recurrent_q.unrolled, static_argnums=(0, 3))(
    network_of(), params, data, 2
  )
  mask, step_type = np.asarray(data['mask']), np.asarray(data['step_type'])
  lengths = mask.sum(axis=1)
  assert {1, 2, 3, 4, 5} & set(lengths.tolist()) > {5}
  assert {FIRST, MID} == set(step_type[:, 0].tolist())
  for i, length in enumerate(lengths):
    for t in range(length):
      # As the actor had it before this very step.
      state = hk.LSTMState(data['hidden'][i, t][None], data['cell'][i, t][None])
      acting, _ = STEP(
        params,
        data['observation'][i, t][None, None],
        data['previous_action'][i, t][None, None],
        state,
      )
      np.testing.assert_allclose(values[i, t], acting[0, 0], rtol=1e-4, atol=1e-5)
      assert data['action'][i, t] == np.argmax(values[i, t])
    if step_type[i, 0] == FIRST:
      assert not np.any(data['hidden'][i, 0])
      assert data['previous_action'][i, 0] == recurrent_q.NO_ACTION


def test_memory_and_previous_action_change_what_is_seen():
  agent = agent_of()
  params = jax.jit(agent.init)(jax.random.PRNGKey(0)).params
  observation, zeros = np.ones((1, 1, 2), np.float32), np.zeros((1, 4), np.float32)
  states = [hk.LSTMState(zeros, zeros), hk.LSTMState(zeros + 1, zeros + 1)]
  values = [
    np.asarray(STEP(params, observation, np.array([[action]]), state)[0])
    for action, state in [(0, states[0]), (1, states[0]), (0, states[1])]
  ]
  assert not np.allclose(values[0], values[1])
  assert not np.allclose(values[0], values[2])


def test_each_environment_explores_by_its_own_epsilon():
  agent = agent_of(epsilon=0.4, epsilon_alpha=2.0)
  np.testing.assert_allclose(agent.initial_carry(3).epsilon, [0.4, 0.16, 0.064])
  np.testing.assert_allclose(agent.initial_carry(1).epsilon, [0.16], rtol=1e-6)
  params = jax.jit(agent.init)(jax.random.PRNGKey(0)).params
  count = 2000
  memory = agent.initial_carry(count)._replace(epsilon=jnp.full(count, 0.4))
  observation, key = np.ones((count, 2), np.float32), jax.random.PRNGKey(0)
  explored, _, _ = jax.jit(agent.policy)(params, memory, observation, key)
  greedy, _, _ = jax.jit(agent.evaluation_policy)(params, memory, observation, key)
  assert len(set(greedy.tolist())) == 1
  # Of 0.4 a third is the greedy action.
  assert np.mean(explored != greedy) == pytest.approx(0.4 * 2 / 3, abs=0.04)


# Learning.


def expected(batch, params, target_params, config=SMALL):
  """Loss, TD error and priorities by rlax, of one sequence after the other."""
  data, sums, count, total, priorities = batch.data, 0.0, 0, 0.0, []
  weights = (50 * batch.probabilities) ** -config.importance_exponent
  weights /= weights.max()
  for i, length in enumerate(data['mask'].sum(axis=1)):
    before = sequence_of(data, i, 'before')[: length + 1]
    values, target_values = (
      one_by_one(
        each,
        data['observation'][i, : length + 1],
        before,
        sequence_of(data, i, 'state'),
      )[0]
      for each in (params, target_params)
    )
    errors = rlax.transformed_n_step_q_learning(
      values[:length],
      data['action'][i, :length],
      target_values[1:],
      np.argmax(values[1:], axis=-1),
      data['reward'][i, :length],
      np.float32(config.discount) * data['discount'][i, :length],
      config.n_step,
      tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR,
    )
    begin = 0 if data['step_type'][i, 0] == FIRST else config.burn_in_length
    errors = np.abs(np.asarray(errors)[begin:])
    sums += weights[i] * np.sum(errors**2) / 2
    count, total = count + len(errors), total + np.sum(errors)
    eta = config.priority_eta
    priorities.append(eta * errors.max() + (1 - eta) * errors.mean())
  return sums / count, total / count, priorities


UPDATE = jax.jit(agent_of().update)


@pytest.mark.parametrize('first', [True, False])
def test_the_loss_is_that_of_rlax(first):
  state, batch = disagreeing_state(agent_of()), batch_of((5, 4, 3), first=first)
  after, metrics = UPDATE(state, batch)
  loss, td_error, priorities = expected(batch, state.params, state.target_params)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-3)
  np.testing.assert_allclose(metrics['td_error'], td_error, rtol=1e-3)
  np.testing.assert_allclose(metrics['priorities'], priorities, rtol=1e-3)
  assert after.steps == 1


def test_an_update_does_not_see_what_stands_behind_an_end():
  state, batch = disagreeing_state(agent_of()), batch_of((5, 4, 3))
  data, rng = dict(batch.data), np.random.default_rng(1)
  behind = ~data['mask']
  for name in ('action', 'reward', 'discount', 'hidden', 'cell', 'previous_action'):
    noise = rng.integers(0, 3, data[name].shape).astype(data[name].dtype)
    data[name] = np.where(
      behind if behind.ndim == noise.ndim else behind[..., None], noise, data[name]
    )
  noise = rng.normal(size=data['observation'].shape).astype(np.float32)
  shown = np.arange(6) <= np.array([[5], [4], [3]])
  data['observation'] = np.where(shown[..., None], data['observation'], noise)
  before, metrics = UPDATE(state, batch)
  after, others = UPDATE(state, batch._replace(data=data))
  jax.tree.map(np.testing.assert_allclose, metrics, others)
  jax.tree.map(np.testing.assert_allclose, before.params, after.params)


def test_no_gradient_flows_into_the_burn_in():
  state, batch = disagreeing_state(agent_of()), batch_of((5, 5, 5))
  # The same network burns the state in, but for the learner it is a number.
  state = state._replace(target_params=jax.tree.map(jnp.copy, state.params))
  data = batch.data
  begun = {name: column[:, 2:].copy() for name, column in data.items()}
  for i in range(3):
    before = sequence_of(data, i, 'before')
    stored = sequence_of(data, i, 'state')
    _, states = one_by_one(state.params, data['observation'][i], before, stored)
    begun['hidden'][i, 0], begun['cell'][i, 0] = states[2].hidden[0], states[2].cell[0]
    begun['previous_action'][i, 0] = before[2]
  after, metrics = UPDATE(state, batch)
  without = jax.jit(agent_of(burn_in_length=0).update)
  other, others = without(state, batch._replace(data=begun))
  np.testing.assert_allclose(metrics['loss'], others['loss'], rtol=1e-4)
  np.testing.assert_allclose(
    metrics['gradient_norm'], others['gradient_norm'], rtol=1e-3
  )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    after.params,
    other.params,
  )
  # Where the episode begins with the sequence, it flows and more is learned from.
  data = {**data, 'step_type': data['step_type'].copy()}
  data['step_type'][:, 0] = FIRST
  _, begins = UPDATE(state, batch._replace(data=data))
  assert abs(begins['gradient_norm'] - others['gradient_norm']) > 1e-3


@pytest.mark.parametrize(
  'changes', [{'rescale': False}, {'priority_eta': 0.0}, {'importance_exponent': 0.0}]
)
def test_each_switch_makes_a_difference(changes):
  state, batch = disagreeing_state(agent_of()), batch_of((5, 4, 3))
  _, metrics = UPDATE(state, batch)
  _, others = jax.jit(agent_of(**changes).update)(state, batch)
  changed = 'priorities' if 'priority_eta' in changes else 'loss'
  assert not np.allclose(metrics[changed], others[changed], rtol=1e-3)


def test_the_target_network_follows_in_its_period():
  agent = agent_of(target_update_period=2)
  state, batch = disagreeing_state(agent), batch_of((5, 4, 3))
  batches = jax.tree.map(lambda leaf: np.stack([leaf] * 2), batch)
  once, _ = jax.jit(agent.update)(state, batch)
  twice, metrics = jax.jit(lambda s, b: jax.lax.scan(agent.update, s, b))(
    state, batches
  )
  assert metrics['priorities'].shape == (2, 3)
  jax.tree.map(np.testing.assert_array_equal, once.target_params, state.target_params)
  jax.tree.map(np.testing.assert_array_equal, twice.target_params, twice.params)


# Declarations.


def test_what_it_declares():
  agent = agent_of(samples_per_insert=4.0)
  assert agent.writes == Sequences('sequences', 5, 2, cross_episodes=False)
  assert agent.samples == Sampling('sequences', 3)
  [table] = agent.tables
  assert table.sampler == 'prioritized' and table.limiter == Limiter(1, 4.0)
  assert table.columns['hidden'].shape == (5, 4)
  assert table.columns['observation'].shape == (6, 2)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'burn_in_length': -1},
      r'burn_in_length is -1, expected an integer of at least 0',
    ),
    ({'unroll_length': 0}, r'unroll_length is 0, expected an integer of at least 1'),
    ({'period': 4}, r'period is 4, expected at most unroll_length, 3; .*period=8'),
    ({'priority_eta': 1.5}, r'priority_eta is 1.5, expected a number .* at most 1'),
    ({'lstm_size': 2.5}, r'lstm_size is 2.5, expected an integer'),
    ({'hidden_sizes': (8, 0)}, r'hidden_sizes is \(8, 0\), expected positive integers'),
    ({'learning_rate': float('nan')}, r'learning_rate is nan, expected a number'),
    ({'min_replay_size': 10**9}, r'min_replay_size is .* at most max_replay_size'),
  ],
)
def test_settings_out_of_range_are_refused(changes, message):
  with pytest.raises(UsageError, match=f'^R2D2Config.{message}'):
    agent_of(**changes)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (
      SPEC._replace(action=specs.BoundedArray((1,), np.float32, -1, 1)),
      'r2d2: the action is BoundedArray.*expected a DiscreteArray',
    ),
    (
      SPEC._replace(observation=specs.Array((2, 2), np.float32)),
      r'r2d2: the observation is .*give your own network: r2d2\(spec, torso=',
    ),
  ],
)
def test_environments_that_do_not_fit_are_refused(spec, message):
  with pytest.raises(UsageError, match=message):
    r2d2(spec, SMALL)


def test_a_torso_of_ones_own_takes_any_observation():
  spec = SPEC._replace(observation=specs.Array((2, 2), np.float32))

  def torso(observation):
    assert observation.shape[1:] == (2, 2)
    return hk.Linear(5)(jnp.reshape(observation, (-1, 4)))

  agent = r2d2(spec, SMALL, torso=torso)
  state = jax.eval_shape(agent.init, jax.random.PRNGKey(0))
  assert state.params['linear']['w'].shape == (4, 5)
