"""What the tests of agents for continuous actions share."""

from __future__ import annotations

import jax
import numpy as np
from dm_env import specs
from jax.flatten_util import ravel_pytree

from callsheet.agents.base import Batch, EnvironmentSpec

LOW, HIGH = np.float32([-2, 0]), np.float32([2, 1])
SPEC = EnvironmentSpec(
  specs.Array((3,), np.float32), specs.BoundedArray((2,), np.float32, LOW, HIGH)
)


def random_batch(seed=0, size=4):
  rng = np.random.default_rng(seed)
  return Batch(
    data={
      'observation': rng.normal(size=(size, 3)).astype(np.float32),
      'action': rng.uniform(LOW, HIGH, size=(size, 2)).astype(np.float32),
      'reward': rng.normal(size=size).astype(np.float32),
      'discount': np.resize([0.97, 0.0, 0.9, 0.97], size).astype(np.float32),
      'next_observation': rng.normal(size=(size, 3)).astype(np.float32),
    },
    probabilities=rng.uniform(0.01, 0.2, size).astype(np.float32),
    table_size=np.int32(50),
  )


def to_unit(action):
  return (action - LOW) / (HIGH - LOW) * 2 - 1


def mlp(params, name, x, *, final=False):
  """An MLP of haiku in NumPy; `final` activates its last layer too."""
  layers = sorted(key for key in params if key.startswith(f'{name}/~/linear_'))
  for i, layer in enumerate(layers):
    x = x @ np.asarray(params[layer]['w']) + np.asarray(params[layer]['b'])
    x = np.maximum(x, 0) if final or i < len(layers) - 1 else x
  return x


def head(params, observation):
  """The outputs of a policy's last layer."""
  features = mlp(params, 'dense', observation, final=True)
  layer = params['policy']
  return features @ np.asarray(layer['w']) + np.asarray(layer['b'])


def values(params, observation, action):
  """The values of two critics, `[2, B]`."""
  inputs = np.concatenate([observation, action], axis=-1)
  return np.stack([mlp(params, f'critic_{i}', inputs)[:, 0] for i in range(2)])


def gradient(opt_state, params):
  """Of the first update: a tenth of it is what Adam remembers."""
  is_adam = lambda node: hasattr(node, 'mu')  # noqa: E731
  [adam] = [
    node for node in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(node)
  ]
  return ravel_pytree(params)[1](10 * adam.mu)


def check_direction(loss, params, gradient, *, seed=0, step=2e-3):
  """Whether finite differences of `loss(params)` agree, along a random direction."""
  rng = np.random.default_rng(seed)
  flat, unravel = ravel_pytree(params)
  direction = rng.normal(size=flat.shape).astype(np.float32)
  rise = loss(unravel(flat + step * direction)) - loss(unravel(flat - step * direction))
  slope = np.dot(ravel_pytree(gradient)[0], direction)
  np.testing.assert_allclose(rise / (2 * step), slope, rtol=0.05, atol=2e-3)
