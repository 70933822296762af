"""An LSTM in a rollout is the one that acts, step by step."""

from __future__ import annotations

import haiku as hk
import jax
import numpy as np
import pytest

from callsheet.agents import cores

B, T, F = 3, 6, 2


@pytest.mark.parametrize('size', [None, 4])
def test_an_unroll_is_its_steps(size):
  generator = np.random.default_rng(0)
  features = generator.normal(size=(B, T, F)).astype(np.float32)
  first = generator.random((B, T)) < 0.3
  step = hk.without_apply_rng(hk.transform(lambda x, m: cores.step(size, x, m)))
  unroll = hk.without_apply_rng(
    hk.transform(lambda x, m, f: cores.unroll(size, x, m, f))
  )
  memory = {
    name: generator.normal(size=(B, *spec.shape)).astype(np.float32)
    for name, spec in cores.memory_specs(size).items()
  }
  params = step.init(jax.random.PRNGKey(1), features[:, 0], memory)
  outputs = unroll.apply(params, features, memory, first)
  for t in range(T):
    memory = {
      name: np.where(first[:, t, None], 0, value) for name, value in memory.items()
    }
    expected, memory = step.apply(params, features[:, t], memory)
    np.testing.assert_allclose(outputs[:, t], expected, atol=1e-6)


@pytest.mark.parametrize('size', [None, 4])
def test_its_memory_is_as_declared(size):
  initial = cores.initial(size, B)
  assert {name: (value.shape, value.dtype) for name, value in initial.items()} == {
    name: ((B, *spec.shape), spec.dtype)
    for name, spec in cores.memory_specs(size).items()
  }
  assert set(initial) == (set() if size is None else {'hidden', 'cell'})
