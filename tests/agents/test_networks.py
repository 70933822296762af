"""Torsos take what fits them, and refuse what doesn't in one line."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from callsheet.agents import networks
from callsheet.agents.actions import Bounds
from callsheet.agents.base import EnvironmentSpec
from callsheet.errors import UsageError

VECTOR = specs.Array((3,), np.float32)
LARGE = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
SMALL = specs.Array((10, 10, 4), np.bool_)
NUMBER = specs.DiscreteArray(5, np.int32)


def features(observation, kind, inputs, given=None):
  transformed = hk.without_apply_rng(
    hk.transform(lambda x: networks.torso('agent', observation, kind, (7,), given)(x))
  )
  params = transformed.init(jax.random.PRNGKey(0), inputs)
  return params, transformed.apply(params, inputs)


@pytest.mark.parametrize(
  ('observation', 'kind', 'convolutions'),
  [
    (VECTOR, 'auto', 0),
    (NUMBER, 'auto', 0),
    (LARGE, 'auto', 3),
    (SMALL, 'auto', 1),
    (LARGE, 'shallow', 2),
    (LARGE, 'impala', 15),
    (SMALL, 'impala', 15),
    (LARGE, 'minatar', 1),
  ],
)
def test_features_are_vectors(observation, kind, convolutions):
  inputs = np.ones((2, *observation.shape), observation.dtype)
  params, outputs = features(observation, kind, inputs)
  assert outputs.shape == (2, 7) and outputs.dtype == jnp.float32
  assert sum('conv' in name for name in params) == convolutions


def test_discrete_observations_are_one_hot_and_pixels_are_scaled():
  params, outputs = features(NUMBER, 'mlp', np.array([4, 0]))
  weights = params['torso/~/linear_0']['w']
  np.testing.assert_allclose(outputs, jax.nn.relu(weights[np.array([4, 0])]), rtol=1e-6)
  white = np.full((1, 84, 84, 4), 255, np.uint8)
  bright = features(LARGE, 'nature', white)[1]
  unit = specs.Array((84, 84, 4), np.float32)
  same = features(unit, 'nature', np.ones((1, 84, 84, 4), np.float32))[1]
  np.testing.assert_allclose(bright, same, rtol=1e-5, atol=1e-6)


def test_a_network_of_ones_own_gets_the_observation_as_it_is():
  seen = []

  def given(inputs):
    seen.append(inputs.dtype)
    return jnp.reshape(inputs, (2, -1)).astype(jnp.float32)

  cube = specs.Array((2, 2, 2, 2), np.int8)
  assert features(cube, 'auto', np.ones((2, 2, 2, 2, 2), np.int8), given)[1].shape == (
    2,
    16,
  )
  assert set(seen) == {np.dtype(np.int8)}


@pytest.mark.parametrize(
  ('observation', 'kind', 'message'),
  [
    (
      LARGE,
      'mlp',
      r"84, 4\).*expected a vector for the torso 'mlp'; take torso=",
    ),
    (VECTOR, 'nature', r'expected an image .* at least 36 pixels'),
    (SMALL, 'nature', r'expected an image .* at least 36 pixels'),
    (SMALL, 'shallow', r'expected an image .* at least 20 pixels'),
    (specs.Array((2, 3), np.float32), 'auto', r'expected a vector or an image'),
    (specs.StringArray((3,)), 'auto', r'expected a vector or an image'),
    (VECTOR, 'cnn', r"agent: no torso 'cnn'; there are auto, mlp, nature"),
  ],
)
def test_what_does_not_fit_is_refused(observation, kind, message):
  with pytest.raises(UsageError, match=message):
    networks.torso('agent', observation, kind, ())


# Actions.


def bounds(*args):
  return Bounds.of('sac', EnvironmentSpec(VECTOR, specs.BoundedArray(*args)))


def test_actions_go_to_the_bounds_and_back():
  made = bounds((2,), np.float32, [-2, 0], [2, 10])
  assert made.size == 2
  unit = jnp.array([[-1, -1], [1, 1], [0, 0.5]])
  action = made.from_unit(unit)
  np.testing.assert_allclose(action, [[-2, 0], [2, 10], [0, 7.5]])
  np.testing.assert_allclose(made.to_unit(action), unit)
  np.testing.assert_allclose(made.from_unit(jnp.array([9.0, -9])), [2, 0])


@pytest.mark.parametrize(
  ('action', 'message'),
  [
    (specs.DiscreteArray(3), r'sac: the action is Discrete.*an agent for discrete'),
    (specs.Array((2,), np.float32), 'no finite bounds'),
    (specs.BoundedArray((2,), np.float32, -np.inf, 1), 'no finite bounds'),
    (specs.BoundedArray((2,), np.float32, 1, 1), 'or empty ones.*RescaleAction'),
    (specs.BoundedArray((2, 2), np.float32, 0, 1), 'expected a vector of real numbers'),
    (specs.BoundedArray((), np.float32, 0, 1), 'expected a vector of real numbers'),
  ],
)
def test_actions_without_bounds_are_refused(action, message):
  with pytest.raises(UsageError, match=message):
    Bounds.of('sac', EnvironmentSpec(VECTOR, action))
