"""The distributions are those of distrax."""

from __future__ import annotations

import jax
import numpy as np

from callsheet.agents.distributions import Categorical, Gaussian
from callsheet.agents.rlax_import import import_rlax

KEY = jax.random.PRNGKey(3)
GENERATOR = np.random.default_rng(0)


def distrax():
  import_rlax()  # It makes distrax importable without TensorFlow.
  import distrax

  return distrax


def check(ours, theirs, actions):
  np.testing.assert_allclose(
    ours.log_prob(actions), theirs.log_prob(actions), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-5)
  np.testing.assert_array_equal(ours.mode(), theirs.mode())


def test_categorical():
  logits = GENERATOR.normal(size=(4, 5, 3)).astype(np.float32)
  actions = GENERATOR.integers(3, size=(4, 5)).astype(np.int32)
  check(Categorical(logits), distrax().Categorical(logits), actions)


def test_gaussian():
  mean, log_std = GENERATOR.normal(size=(2, 4, 5, 3)).astype(np.float32)
  actions = GENERATOR.normal(size=(4, 5, 3)).astype(np.float32)
  theirs = distrax().MultivariateNormalDiag(mean, np.exp(log_std))
  check(Gaussian(mean, log_std), theirs, actions)


def test_categorical_draws_as_it_says():
  logits = np.log(np.array([0.5, 0.2, 0.3], np.float32))
  drawn = Categorical(np.broadcast_to(logits, (20_000, 3))).sample(KEY)
  assert drawn.dtype == np.int32
  shares = np.bincount(drawn) / len(drawn)
  np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.02)


def test_gaussian_draws_as_it_says():
  mean, std = np.array([1.0, -2.0]), np.array([0.5, 3.0])
  rows = np.broadcast_to(np.stack([mean, np.log(std)]), (20_000, 2, 2))
  drawn = Gaussian(rows[:, 0], rows[:, 1]).sample(KEY)
  np.testing.assert_allclose(np.mean(drawn, axis=0), mean, atol=0.1)
  np.testing.assert_allclose(np.std(drawn, axis=0), std, rtol=0.03)
