"""R2D2 as it acts: what it stores, how it explores, what it declares and refuses."""

from __future__ import annotations

import dataclasses

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import recurrent_q
from callsheet.agents.base import Limiter, Sampling, Sequences
from callsheet.agents.r2d2 import r2d2
from callsheet.errors import UsageError
from callsheet.nodes.actor import make_writer
from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.playing import jit_acting
from tests.agents.sequences import FIRST, MID, SMALL, SPEC, agent_of, network_of, step

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
  """Sequences of environments whose episodes have 4 and 7 steps, as they are stored."""
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
      acting, _ = step(
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
    np.asarray(step(params, observation, np.array([[action]]), state)[0])
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
