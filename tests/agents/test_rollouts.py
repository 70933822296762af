"""What returns make of the ends of episodes, and how old a policy was."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from callsheet.agents.base import Batch
from callsheet.agents.minibatches import epochs
from callsheet.agents.ppo_loss import advantages
from callsheet.agents.rollouts import masked_mean, policy_lag, trace_decays

GAMMA, LAMBDA = 0.9, 0.5


def estimated(reward, discount, mask, values):
  data = {
    'reward': np.array([reward], np.float32),
    'discount': np.array([discount], np.float32),
    'mask': np.array([mask]),
  }
  [found] = advantages(np.array([values], np.float32), data, GAMMA, LAMBDA)
  return found.tolist()


def test_advantages_within_an_episode():
  # Behind the last step: 3 + 0.9 * 40 - 30 = 9; before: 2 + 0.9 * 30 - 20 + 0.45 * 9.
  found = estimated([2, 3], [1, 1], [True, True], [20, 30, 40])
  assert found == pytest.approx([9 + 0.45 * 9, 9])


def test_advantages_at_a_termination():
  # Nothing is worth anything behind it: 2 - 20. The value of the step that leads to
  # the next episode, 30, appears nowhere.
  found = estimated([2, 0, 5], [0, 0, 1], [True, False, True], [20, 30, 40, 50])
  assert found[0] == pytest.approx(2 - 20)
  assert found[2] == pytest.approx(5 + 0.9 * 50 - 40)


def test_advantages_at_a_truncation():
  # The last observation's value, 30, stands for what would have come, no trace of it.
  found = estimated([2, 0, 5], [1, 0, 1], [True, False, True], [20, 30, 40, 50])
  assert found[0] == pytest.approx(2 + 0.9 * 30 - 20)
  assert found[2] == pytest.approx(5 + 0.9 * 50 - 40)


def test_a_rollout_that_begins_behind_an_end():
  found = estimated([0, 5], [0, 1], [False, True], [30, 40, 50])
  assert found[1] == pytest.approx(5 + 0.9 * 50 - 40)


def test_traces_end_where_no_step_follows():
  mask = np.array([[True, True, False, True], [False, True, True, False]])
  np.testing.assert_allclose(
    trace_decays(mask, LAMBDA), [[0.5, 0, 0.5, 0.5], [0.5, 0.5, 0, 0.5]]
  )


def test_means_are_of_steps_alone():
  values, mask = np.array([1.0, 100.0, 4.0]), np.array([True, False, True])
  assert masked_mean(values, mask) == 2.5
  assert masked_mean(values, np.zeros(3, bool)) == 0


def test_the_lag_is_that_of_steps_alone():
  data = {
    'version': np.array([[5, 0, 3]], np.int32),
    'mask': np.array([[True, False, True]]),
  }
  assert policy_lag(np.int32(6), Batch(data, np.ones(1), np.int32(1))) == 2


def test_epochs_see_each_row_once_and_in_another_order():
  rows = np.arange(12)

  def step(seen, minibatch):
    return seen + 1, minibatch['row']

  steps, orders = jax.jit(
    lambda key: epochs(step, 0, {'row': rows}, key, num_epochs=3, num_minibatches=4)
  )(jax.random.PRNGKey(0))
  assert steps == 12
  assert orders.shape == (3, 4, 3)
  flat = np.reshape(orders, (3, 12))
  np.testing.assert_array_equal(np.sort(flat, axis=1), np.broadcast_to(rows, (3, 12)))
  assert len({tuple(order) for order in flat.tolist()}) == 3
