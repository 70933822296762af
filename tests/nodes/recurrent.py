"""An agent that remembers, and what it does, worked out for each environment alone."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from tests.nodes.small import agent

_PRIME = 9973


def initial(num_environments):
  """The carry's rows differ, as those of an epsilon ladder do."""
  return np.arange(7, 7 + num_environments, dtype=np.int32)


def recurrent_agent(**changes):
  """What it does in step t depends on all that it has seen, and on the parameters.

  An observation of zeros, as padding has, would have it divide by zero.
  """

  def policy(params, carry, observation, key):
    seen = observation[:, 0].astype(jnp.int32)
    total = (carry['total'] * 31 + seen) % _PRIME
    action = (total + params['mean'].astype(jnp.int32)) % 1009
    extras = {
      'before': carry['total'],
      'inverse': 1 / jnp.sum(observation, axis=1),
      'pair': jnp.stack([action, total], axis=1),
    }
    return action, {'total': total, 'steps': carry['steps'] + 1}, extras

  return dataclasses.replace(
    agent(),
    **{
      'policy': policy,
      'initial_carry': lambda count: {
        'total': jnp.asarray(initial(count)),
        'steps': jnp.zeros((count, 2), jnp.float32),
      },
      **changes,
    },
  )


def observed(values):
  """The observation `[B, 2]` that shows these integers, which are above 0."""
  values = np.array(values, np.float32)
  return np.stack([values, np.ones_like(values)], axis=1)


def begun(values, *which):
  """Where an episode begins: in the environments that are named."""
  return np.isin(np.arange(len(values)), which).tolist()


class Alone:
  """The same policy of one actor, in plain integers."""

  def __init__(self):
    self._total = None

  def act(self, values, first=None, mean=0):
    """What is expected of the step: action and extras."""
    if self._total is None:
      first = [True] * len(values)
    pairs = zip(first or begun(values), initial(len(values)).tolist(), strict=True)
    before = [
      new if begins else self._total[i] for i, (begins, new) in enumerate(pairs)
    ]
    pairs = zip(before, values, strict=True)
    self._total = [(total * 31 + value) % _PRIME for total, value in pairs]
    action = [(total + mean) % 1009 for total in self._total]
    extras = {
      'before': before,
      'inverse': [1 / (value + 1) for value in values],
      'pair': list(zip(action, self._total, strict=True)),
    }
    return action, extras

  def check(self, action, extras, values, first=None, mean=0):
    """Asserts that these are the step's."""
    expected_action, expected = self.act(values, first, mean)
    np.testing.assert_array_equal(action, expected_action)
    assert set(extras) == set(expected)
    for name, array in expected.items():
      np.testing.assert_allclose(extras[name], array, rtol=1e-6)
