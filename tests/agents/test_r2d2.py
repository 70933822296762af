"""What R2D2 learns from stored sequences: against rlax, and step by step."""

from __future__ import annotations

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from callsheet.agents.base import Batch
from tests.agents.sequences import FIRST, SMALL, agent_of, random_sequences, step


def one_by_one(params, observation, before, state):
  """Values `[T, A]` and states, of a single environment, step by step."""
  values, states = [], []
  for seen, taken in zip(observation, before, strict=True):
    states.append(state)
    value, state = step(params, seen[None, None], taken[None, None], state)
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
      tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR if config.rescale else rlax.IDENTITY_PAIR,
    )
    begin = 0 if data['step_type'][i, 0] == FIRST else config.burn_in_length
    errors = np.abs(np.asarray(errors)[begin:])
    sums += weights[i] * np.sum(errors**2) / 2
    count, total = count + len(errors), total + np.sum(errors)
    eta = config.priority_eta
    priorities.append(eta * errors.max() + (1 - eta) * errors.mean())
  return sums / count, total / count, priorities


UPDATE = jax.jit(agent_of().update)


OTHERWISE = {'rescale': False, 'priority_eta': 0.3, 'importance_exponent': 0.0}


@pytest.mark.parametrize(
  ('changes', 'first'), [({}, False), ({}, True), (OTHERWISE, False)]
)
def test_the_loss_is_that_of_rlax(changes, first):
  update = jax.jit(agent_of(**changes).update) if changes else UPDATE
  state, batch = disagreeing_state(agent_of()), batch_of((5, 4, 3), first=first)
  after, metrics = update(state, batch)
  loss, td_error, priorities = expected(
    batch,
    state.params,
    state.target_params,
    dataclasses.replace(SMALL, **changes),
  )
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


def test_the_target_network_follows_in_its_period():
  agent = agent_of(target_update_period=2)
  state, batch = disagreeing_state(agent), batch_of((5, 4, 3))

  def updated(state, batch):
    state, metrics = agent.update(state, batch)
    return state, (state, metrics)

  twice = jax.tree.map(lambda leaf: np.stack([leaf] * 2), batch)
  _, (states, metrics) = jax.jit(lambda s, b: jax.lax.scan(updated, s, b))(state, twice)
  assert metrics['priorities'].shape == (2, 3)
  first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(2))
  jax.tree.map(np.testing.assert_array_equal, first.target_params, state.target_params)
  jax.tree.map(np.testing.assert_array_equal, second.target_params, second.params)
