"""TD errors over sequences against rlax, and against numbers worked by hand."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents import sequence_errors
from tests.agents.sequences import FIRST, LAST, MID, random_sequences

JITTED = jax.jit(
  sequence_errors.td_errors, static_argnames=('n_step', 'discount', 'rescale')
)


def errors_of(values, target_values, data, n_step=3, discount=0.9, rescale=True):
  errors = JITTED(
    values, target_values, data, n_step=n_step, discount=discount, rescale=rescale
  )
  return np.asarray(errors)


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize('n_step', [1, 3])
def test_each_is_that_of_rlax_for_the_sequence_without_its_padding(n_step, rescale):
  lengths = (5, 3)
  values, target_values, data = random_sequences(lengths, longest=5)
  errors = errors_of(values, target_values, data, n_step, rescale=rescale)
  pair = rlax.SIGNED_HYPERBOLIC_PAIR if rescale else rlax.IDENTITY_PAIR
  rlax_errors = jax.jit(
    functools.partial(rlax.transformed_n_step_q_learning, n=n_step, tx_pair=pair)
  )
  for i, length in enumerate(lengths):
    expected = rlax_errors(
      values[i, :length],
      data['action'][i, :length],
      target_values[i, 1 : length + 1],
      np.argmax(values[i, 1 : length + 1], axis=-1),
      data['reward'][i, :length],
      np.float32(0.9) * data['discount'][i, :length],
    )
    np.testing.assert_allclose(errors[i, :length], expected, rtol=2e-4, atol=2e-5)


def by_hand(step_type, discount, mask):
  """Three steps of rewards 1, 2, 3 and action 0; the online network prefers action 1,
  for which the target network says 8, 16, 32 in rows 1, 2, 3.
  """
  values = np.array([[[1, 2], [2, 3], [3, 4], [4, 5]]], np.float32)
  target_values = np.array([[[99, 4], [99, 8], [99, 16], [99, 32]]], np.float32)
  data = {
    'step_type': np.array([step_type], np.int32),
    'action': np.zeros((1, 3), np.int32),
    'reward': np.array([[1, 2, 3]], np.float32) * np.array(mask),
    'discount': np.array([discount], np.float32),
    'mask': np.array([mask]),
  }
  return values, target_values, data


def test_two_steps_worked_by_hand():
  columns = by_hand([MID] * 4, [1, 1, 1], [True] * 3)
  errors = errors_of(*columns, n_step=2, discount=0.5, rescale=False)
  # 1 + (2 + 16 / 2) / 2 - 1, 2 + (3 + 32 / 2) / 2 - 2, 3 + 32 / 2 - 3.
  np.testing.assert_allclose(errors, [[5.0, 9.5, 16.0]])


def test_a_termination_ends_the_sum():
  columns = by_hand([MID, MID, MID, LAST], [1, 1, 0], [True] * 3)
  errors = errors_of(*columns, n_step=2, discount=0.5, rescale=False)
  np.testing.assert_allclose(errors, [[5.0, 2 + 3 / 2 - 2, 0.0]])


@pytest.mark.parametrize(
  ('discount', 'expected'),
  # 1 + (2 + 16 / 2) / 2 - 1 and 2 + 16 / 2 - 2; without the value behind the end
  # 1 + 2 / 2 - 1 and 2 - 2.
  [(1.0, [5.0, 8.0]), (0.0, [1.0, 0.0])],
)
def test_behind_an_early_end_only_a_truncated_episode_has_a_value(discount, expected):
  columns = by_hand([MID, MID, LAST, LAST], [1, discount, 0], [True, True, False])
  errors = errors_of(*columns, n_step=2, discount=0.5, rescale=False)
  np.testing.assert_allclose(errors[0, :2], expected)


def test_rescaled_values_worked_by_hand():
  # h(3) = sqrt(4) - 1 + 0.003; h(5 + 0.5 * 3) = sqrt(7.5) - 1 + 0.0065.
  values = np.array([[[0.5, 0.0], [0.0, 1.0]]], np.float32)
  target_values = np.array([[[0, 0], [0, 1.003]]], np.float32)
  data = {
    'step_type': np.array([[MID, MID]], np.int32),
    'action': np.zeros((1, 1), np.int32),
    'reward': np.full((1, 1), 5, np.float32),
    'discount': np.ones((1, 1), np.float32),
    'mask': np.ones((1, 1), bool),
  }
  errors = errors_of(values, target_values, data, n_step=1, discount=0.5)
  np.testing.assert_allclose(errors, [[2.7386128 - 1 + 0.0065 - 0.5]], rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
  lengths=st.lists(st.integers(1, 5), min_size=3, max_size=3),
  seed=st.integers(0, 2**16),
  n_step=st.sampled_from([1, 3]),
)
def test_what_stands_behind_the_end_does_not_matter(lengths, seed, n_step):
  values, target_values, data = random_sequences(lengths, longest=5, seed=seed)
  rng = np.random.default_rng(~seed + 2**17)
  other = dict(data)
  for name in ('reward', 'discount', 'action'):
    noise = rng.integers(0, 3, data['mask'].shape)
    other[name] = np.where(data['mask'], data[name], noise).astype(data[name].dtype)
  shown = np.arange(6) <= np.array(lengths)[:, None]
  others = [
    np.where(shown[..., None], each, rng.normal(size=each.shape)).astype(np.float32)
    for each in (values, target_values)
  ]
  before = errors_of(values, target_values, data, n_step)
  after = errors_of(*others, other, n_step)
  np.testing.assert_array_equal(before[data['mask']], after[data['mask']])


def test_nobody_learns_from_the_burn_in_but_where_the_episode_begins():
  _, _, data = random_sequences((4, 3, 2, 1), longest=4)
  data['step_type'][2:, 0] = FIRST
  np.testing.assert_array_equal(
    sequence_errors.learned(data, 2),
    [
      [False, False, True, True],
      [False, False, True, False],
      [True, True, False, False],
      [True, False, False, False],
    ],
  )


def test_priorities_worked_by_hand():
  errors = np.array([[1, -3, 2, 50], [0, 0, 0, 0], [9, 9, 9, 9]], np.float32)
  learned = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
  priorities = sequence_errors.priorities(errors, learned, 0.9)
  # 0.9 * 3 + 0.1 * 2; those of no error, or of no step, can still be drawn.
  np.testing.assert_allclose(priorities, [2.9, 0, 0], atol=1e-5)
  assert np.all(np.asarray(priorities) > 0)
