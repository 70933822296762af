"""A DQN so small that numbers can be worked by hand, and batches for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from callsheet.agents.base import Batch, EnvironmentSpec
from callsheet.agents.dqn import DQNConfig, dqn

SPEC = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(2, np.int32))
SMALL = DQNConfig(hidden_sizes=(4, 4), batch_size=4, max_gradient_norm=None)


def random_batch(seed=0, size=4, scale=2.0):
  rng = np.random.default_rng(seed)
  return Batch(
    data={
      'observation': rng.normal(size=(size, 3)).astype(np.float32),
      'action': rng.integers(0, 2, size).astype(np.int32),
      'reward': (scale * rng.normal(size=size)).astype(np.float32),
      'discount': rng.choice([0.0, 0.97], size).astype(np.float32),
      'next_observation': rng.normal(size=(size, 3)).astype(np.float32),
    },
    probabilities=rng.uniform(0.01, 0.2, size).astype(np.float32),
    table_size=np.int32(50),
  )


def by_hand(**changes):
  """A linear network of known weights: q(s) = (s0, 2 s1), and its target (s1, s0)."""
  spec = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(2))
  config = DQNConfig(
    **{
      'hidden_sizes': (),
      'dueling': False,
      'huber_delta': None,
      'max_gradient_norm': None,
      'importance_exponent': 1.0,
      **changes,
    }
  )
  agent = dqn(spec, config)
  state = agent.init(jax.random.PRNGKey(0))

  def weights(matrix):
    def set_to(leaf):
      return jnp.array(matrix) if leaf.ndim == 2 else jnp.zeros_like(leaf)

    return jax.tree.map(set_to, state.params)

  state = state._replace(
    params=weights([[1.0, 0.0], [0.0, 2.0]]),
    target_params=weights([[0.0, 1.0], [1.0, 0.0]]),
  )
  batch = Batch(
    data={
      'observation': np.array([[1, 2], [3, 1]], np.float32),
      'action': np.array([0, 1], np.int32),
      'reward': np.array([0.5, -1], np.float32),
      'discount': np.array([0.5, 0], np.float32),
      'next_observation': np.array([[5, 3], [1, 1]], np.float32),
    },
    probabilities=np.array([0.25, 0.5], np.float32),
    table_size=np.int32(4),
  )
  return agent, state, batch
