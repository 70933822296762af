"""A small R2D2, its network step by step, and sequences as a replay stores them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from dm_env import specs

from callsheet.agents import networks, recurrent_q
from callsheet.agents.base import EnvironmentSpec
from callsheet.agents.r2d2 import R2D2Config, r2d2

FIRST, MID, LAST = 0, 1, 2
SPEC = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(3, np.int32))
SMALL = R2D2Config(
  burn_in_length=2,
  unroll_length=3,
  period=2,
  hidden_sizes=(8, 8),
  lstm_size=4,
  batch_size=3,
  n_step=2,
  max_gradient_norm=None,
  # So large that a step of Adam shows the gradient and not only its sign.
  adam_epsilon=1.0,
  epsilon=0.0,
  min_replay_size=1,
)


def agent_of(**changes):
  return r2d2(SPEC, dataclasses.replace(SMALL, **changes))


def network_of(config=SMALL):
  torso = networks.torso('test', SPEC.observation, 'auto', config.hidden_sizes[:-1])
  return recurrent_q.network(torso, 3, config.lstm_size, config.hidden_sizes[-1:])


UNCUT = np.zeros((1, 1), bool)
APPLY = jax.jit(network_of().apply)


def step(params, observation, before, state):
  """One step of one environment."""
  return APPLY(params, observation, before, state, UNCUT)


def random_sequences(lengths, *, longest, seed=0, first=False, discounts=(0.0, 1.0)):
  """Values and target values `[B, L + 1, 3]`, and the columns, as a replay pads them.

  Items that are shorter end with their episode, with one of the discounts.
  """
  rng = np.random.default_rng(seed)
  size = len(lengths)
  mask = np.arange(longest) < np.array(lengths)[:, None]
  step_type = np.full((size, longest + 1), MID, np.int32)
  step_type[:, 0] = FIRST if first else MID
  discount = mask.astype(np.float32)
  for i, length in enumerate(lengths):
    if length < longest:
      step_type[i, length:] = LAST
      discount[i, length - 1] = rng.choice(discounts)
  data = {
    'step_type': step_type,
    'action': np.where(mask, rng.integers(0, 3, mask.shape), 0).astype(np.int32),
    'reward': np.where(mask, rng.normal(size=mask.shape), 0).astype(np.float32),
    'discount': discount,
    'mask': mask,
  }
  values = rng.normal(size=(2, size, longest + 1, 3)).astype(np.float32)
  return *values, data
