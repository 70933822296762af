"""How DQN acts and is evaluated: epsilons, noise, samples of quantiles."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from callsheet.agents.exploration import epsilon_ladder
from tests.agents.small_dqn import by_hand


def test_the_ladder_is_that_of_ape_x():
  ladder = epsilon_ladder(0.4, 7.0, 8)
  np.testing.assert_allclose(
    ladder, [0.4 ** (1 + i / 7 * 7) for i in range(8)], rtol=1e-5
  )
  alone = epsilon_ladder(0.4, 7.0, 1)
  np.testing.assert_allclose(alone, [0.4**4.5], rtol=1e-5)
  level = epsilon_ladder(0.1, 0.0, 3)
  np.testing.assert_allclose(level, [0.1] * 3, rtol=1e-5)


def test_each_environment_explores_with_its_own_epsilon():
  agent, state, _ = by_hand(epsilon=1.0, epsilon_alpha=0.0)
  count, observation = 2000, np.tile(np.float32([1, 9]), (2000, 1))
  carry = jnp.where(jnp.arange(count) < 1000, 1.0, 0.1)
  policy = jax.jit(agent.policy)
  action, after, _ = policy(state.params, carry, observation, jax.random.PRNGKey(0))
  assert action.dtype == jnp.int32
  assert action.shape == (count,)
  # The greedy action is 1; half of what is explored takes 0.
  assert 0.45 < np.mean(action[:1000] == 0) < 0.55
  assert 0.03 < np.mean(action[1000:] == 0) < 0.07
  np.testing.assert_array_equal(carry, after)
  again, _, _ = policy(state.params, carry, observation, jax.random.PRNGKey(0))
  other, _, _ = policy(state.params, carry, observation, jax.random.PRNGKey(1))
  assert (action == again).all()
  assert (action != other).any()


def test_the_evaluation_policy_is_greedy():
  agent, state, _ = by_hand(epsilon=1.0, epsilon_alpha=0.0)
  observation = np.array([[1, 9], [9, 1]] * 50, np.float32)
  carry = agent.initial_carry(100)
  for seed in range(5):
    key = jax.random.PRNGKey(seed)
    action, _, _ = agent.evaluation_policy(state.params, carry, observation, key)
    assert action.tolist() == [1, 0] * 50
  loose, _, _ = by_hand(evaluation_epsilon=1.0)
  action, _, _ = loose.evaluation_policy(state.params, carry, observation, key)
  assert action.tolist() != [1, 0] * 50


def test_an_actor_imports_no_tensorflow():
  code = """
import sys, jax, numpy as np
from dm_env import specs
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.dqn import dqn
spec = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(2))
agent = dqn(spec)
key = jax.random.PRNGKey(0)
params = agent.parameters(agent.init(key))
agent.policy(params, agent.initial_carry(2), np.zeros((2, 3), np.float32), key)
print([name for name in ('tensorflow', 'rlax', 'distrax') if name in sys.modules])
"""
  result = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=100
  )
  assert result.stdout.strip() == '[]', result.stderr
