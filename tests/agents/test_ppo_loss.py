"""The clipped objective by hand, and its gradient by finite differences."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from callsheet.agents.actor_critic import ActorCritic, Prediction
from callsheet.agents.distributions import Categorical
from callsheet.agents.ppo_loss import Rollouts, clipped_loss, single_steps

# What it says of N = 2 pieces of one step is its parameters themselves.
NETWORK = ActorCritic(
  lambda key, observation: None,
  lambda params, observation, memory: None,
  lambda params, observation, first, memory: Prediction(
    Categorical(params['logits']), params['value']
  ),
)
OPTIONS = {
  'clip_ratio': 0.2,
  'clip_value': None,
  'value_cost': 0.0,
  'entropy_cost': 0.0,
}


def probabilities(first, second):
  """The parameters by which action 0 has these in the two steps."""
  shares = np.array([[[first, 1 - first]], [[second, 1 - second]]], np.float32)
  return {'logits': np.log(shares), 'value': np.zeros((2, 1), np.float32)}


def rollouts(advantage=(1.0, 1.0), mask=(True, True), **changes):
  """Two steps in which action 0 was chosen, each time with probability a half."""
  column = np.zeros((2, 1), np.float32)
  made = Rollouts(
    observation=column,
    first=column > 0,
    memory={},
    action=column.astype(np.int32),
    log_prob=column + np.log(0.5).astype(np.float32),
    advantage=np.array(advantage, np.float32)[:, None],
    value=column,
    target=column,
    mask=np.array(mask)[:, None],
  )
  return made._replace(**changes)


def loss(params, given, **options):
  value, metrics = clipped_loss(NETWORK, params, given, **{**OPTIONS, **options})
  return float(value), {name: float(figure) for name, figure in metrics.items()}


def test_what_is_likelier_gains_up_to_the_bound():
  # Ratios 1.1 and 1.6; the second is cut off at 1.2.
  value, metrics = loss(probabilities(0.55, 0.8), rollouts((2.0, 3.0)))
  assert value == pytest.approx(-(1.1 * 2 + 1.2 * 3) / 2)
  assert metrics['clipped'] == 0.5


def test_what_is_worse_and_likelier_is_not_cut_off():
  value, _ = loss(probabilities(0.8, 0.2), rollouts((-2.0, -3.0)))
  # Ratios 1.6 and 0.4: the one counts whole, the other as 0.8.
  assert value == pytest.approx((1.6 * 2 + 0.8 * 3) / 2)


def test_there_is_no_gradient_beyond_the_bound():
  def of(params):
    return clipped_loss(NETWORK, params, rollouts((1.0, -1.0)), **OPTIONS)[0]

  beyond = jax.grad(of)(probabilities(0.8, 0.2))['logits']
  np.testing.assert_array_equal(beyond, np.zeros((2, 1, 2)))
  back = jax.grad(of)(probabilities(0.2, 0.8))['logits']
  assert (np.abs(back[:, 0, 0]) > 0.01).all()


def test_only_steps_of_episodes_count():
  given = rollouts((2.0, 100.0), (True, False), log_prob=np.array([[-0.7], [50]], 'f4'))
  alone, _ = loss(probabilities(0.5, 0.5), given, value_cost=1.0, entropy_cost=1.0)
  expected = -2 * 0.5 * np.exp(0.7) - np.log(2)
  assert alone == pytest.approx(expected, rel=1e-5)


def test_a_value_is_drawn_to_its_target():
  params = {**probabilities(0.5, 0.5), 'value': np.array([[1.0], [3.0]], np.float32)}
  given = rollouts((0.0, 0.0), target=np.array([[2.0], [0.0]], np.float32))
  value, metrics = loss(params, given, value_cost=0.5)
  assert metrics['value_loss'] == pytest.approx((0.5 * 1 + 0.5 * 9) / 2)
  assert value == pytest.approx(0.5 * metrics['value_loss'])


def test_a_value_may_be_held_near_what_it_was():
  params = {**probabilities(0.5, 0.5), 'value': np.array([[1.0], [3.0]], np.float32)}
  given = rollouts((0.0, 0.0), target=np.array([[2.0], [0.0]], np.float32))
  # Both were 0: the first counts as 0.5, 1.5 off; the second is 3 off, as 0.5 only 0.5.
  _, metrics = loss(params, given, clip_value=0.5)
  assert metrics['value_loss'] == pytest.approx((0.5 * 1.5**2 + 0.5 * 9) / 2)


def test_entropy_is_held_up():
  value, metrics = loss(probabilities(0.5, 0.5), rollouts((0.0, 0.0)), entropy_cost=0.1)
  assert metrics['entropy'] == pytest.approx(np.log(2), rel=1e-5)
  assert value == pytest.approx(-0.1 * np.log(2), rel=1e-5)


def test_the_divergence_is_none_where_nothing_moved():
  _, still = loss(probabilities(0.5, 0.5), rollouts())
  assert still['kl'] == pytest.approx(0, abs=1e-6)
  _, moved = loss(probabilities(0.6, 0.4), rollouts())
  expected = (0.2 - np.log(1.2) - 0.2 - np.log(0.8)) / 2
  assert moved['kl'] == pytest.approx(expected, rel=1e-4)


def test_gradients_are_finite_differences():
  options = {**OPTIONS, 'value_cost': 0.5, 'entropy_cost': 0.1, 'clip_value': 0.5}
  params = {**probabilities(0.55, 0.45), 'value': np.array([[0.3], [0.9]], np.float32)}
  given = rollouts((2.0, -3.0), target=np.array([[2.0], [-1.0]], np.float32))

  def of(params):
    return clipped_loss(NETWORK, params, given, **options)[0]

  gradients = jax.grad(of)(params)
  step = 1e-2
  for name, index in (('logits', (0, 0, 0)), ('logits', (1, 0, 1)), ('value', (1, 0))):
    ends = []
    for sign in (1, -1):
      shifted = {key: np.array(value) for key, value in params.items()}
      shifted[name][index] += sign * step
      ends.append(float(of(shifted)))
    slope = (ends[0] - ends[1]) / (2 * step)
    assert gradients[name][index] == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_single_steps_are_the_steps():
  pieces = Rollouts(*(np.arange(12).reshape(2, 3, 2) + n for n in range(9)))
  apart = single_steps(pieces._replace(memory={}))
  np.testing.assert_array_equal(apart.action[4, 0], pieces.action[1, 1])
  assert {leaf.shape for leaf in jax.tree.leaves(apart)} == {(6, 1, 2)}
