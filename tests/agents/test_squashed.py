"""Squashed Gaussians against integration and a change of variables by hand."""

from __future__ import annotations

import subprocess
import sys

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.squashed import SquashedGaussian, squashed_gaussian

LOG_PROB = jax.jit(lambda policy, action: policy.log_prob(action))
SAMPLE = jax.jit(lambda policy, key: policy.sample(key))
SAMPLE_AND_LOG_PROB = jax.jit(lambda policy, key: policy.sample_and_log_prob(key))
NUMBERS = st.floats(-1.5, 1.5, width=32)
LOG_STDS = st.floats(-1.5, 0.5, width=32)


def by_hand(policy, x):
  """The log-density of tanh(x), in float64."""
  mean, log_std = np.float64(policy.mean), np.float64(policy.log_std)
  normal = -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std
  normal -= 0.5 * np.log(2 * np.pi)
  return np.sum(normal - np.log1p(-(np.tanh(x) ** 2)), axis=-1)


@settings(max_examples=30, deadline=None)
@given(NUMBERS, LOG_STDS)
def test_the_density_integrates_to_one(mean, log_std):
  edges = np.tanh(
    np.linspace(mean - 7 * np.exp(log_std), mean + 7 * np.exp(log_std), 4001)
  )
  middles = (edges[1:] + edges[:-1]) / 2
  policy = SquashedGaussian(jnp.full((4000, 1), mean), jnp.full((4000, 1), log_std))
  density = np.exp(np.float64(LOG_PROB(policy, jnp.float32(middles)[:, None])))
  # Nearer to the ends, float32 has too few numbers for the middles to be what they are.
  inside = np.abs(middles) < 0.9999
  sum_inside = np.sum((density * np.diff(edges))[inside])
  normal_inside = np.mean(np.abs(np.tanh(mean + np.exp(log_std) * _NORMAL)) < 0.9999)
  assert abs(sum_inside - normal_inside) < 0.01


_NORMAL = np.random.default_rng(0).normal(size=200_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=3), LOG_STDS, st.integers(0, 2**31 - 1))
def test_log_probs_are_those_of_a_change_of_variables(mean, log_std, seed):
  policy = SquashedGaussian(jnp.array([mean]), jnp.full((1, 3), log_std))
  action, log_prob = SAMPLE_AND_LOG_PROB(policy, jax.random.PRNGKey(seed))
  x = np.arctanh(np.clip(np.float64(action), -1 + 1e-9, 1 - 1e-9))
  if np.max(np.abs(action)) < 0.999:
    np.testing.assert_allclose(log_prob, by_hand(policy, x), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(log_prob, LOG_PROB(policy, action), rtol=1e-2, atol=1e-2)
  assert np.isfinite(log_prob).all()


def test_samples_have_the_mean_and_the_deviation():
  policy = SquashedGaussian(jnp.full((20_000, 2), 0.3), jnp.full((20_000, 2), -0.7))
  for action in (
    SAMPLE(policy, jax.random.PRNGKey(0)),
    SAMPLE_AND_LOG_PROB(policy, jax.random.PRNGKey(0))[0],
  ):
    x = np.arctanh(np.float64(action))
    np.testing.assert_allclose(x.mean(axis=0), 0.3, atol=0.02)
    np.testing.assert_allclose(x.std(axis=0), np.exp(-0.7), rtol=0.03)
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.03


def test_the_mode_is_the_squashed_mean():
  policy = SquashedGaussian(jnp.array([[0.5, -3.0]]), jnp.zeros((1, 2)))
  np.testing.assert_allclose(policy.mode(), np.tanh([[0.5, -3.0]]), rtol=1e-6)


def test_actions_at_the_very_ends_have_finite_log_probs_and_gradients():
  policy = SquashedGaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
  ends = jnp.array([[-1.0], [1.0]])
  gradients = jax.jit(jax.grad(lambda policy: jnp.sum(policy.log_prob(ends))))(policy)
  assert np.isfinite(LOG_PROB(policy, ends)).all()
  assert all(np.isfinite(leaf).all() for leaf in gradients)
  assert gradients.mean[0] < 0 < gradients.mean[1]


def test_a_head_begins_near_zero_and_its_deviation_is_bounded():
  head = hk.without_apply_rng(hk.transform(lambda x: squashed_gaussian(x, 3)))
  features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  params = head.init(jax.random.PRNGKey(0), features)
  policy = head.apply(params, features)
  assert policy.mean.shape == policy.log_std.shape == (5, 3)
  assert np.abs(np.stack(policy)).max() < 0.1
  large = jax.tree.map(lambda leaf: 1e5 * (leaf + 1), params)
  np.testing.assert_array_equal(head.apply(large, abs(features)).log_std, 2.0)
  np.testing.assert_array_equal(head.apply(large, -abs(features) - 2).log_std, -10.0)


def test_acting_loads_no_distrax():
  code = (
    'import sys, jax, numpy as np; from dm_env import specs\n'
    'from callsheet.agents.base import EnvironmentSpec\n'
    'from callsheet.agents.sac import SACConfig, sac\n'
    'action = specs.BoundedArray((1,), np.float32, -1, 1)\n'
    'spec = EnvironmentSpec(specs.Array((3,), np.float32), action)\n'
    'agent = sac(spec, SACConfig(hidden_sizes=(4,)))\n'
    'key = jax.random.PRNGKey(0)\n'
    'params = agent.parameters(agent.init(key))\n'
    'agent.policy(params, (), np.zeros((2, 3), np.float32), key)\n'
    'print("distrax" in sys.modules)'
  )
  shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert shown.stdout.strip() == 'False', shown.stderr
