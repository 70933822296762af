"""What every batch of environments keeps to, whatever its family."""

from __future__ import annotations

import itertools

import dm_env
import numpy as np
from dm_env import specs

FIRST, MID, LAST = (int(kind) for kind in dm_env.StepType)


def actions(spec, count, rng):
  """Random ones, as an agent gives them."""
  if isinstance(spec, specs.DiscreteArray):
    return rng.integers(0, spec.num_values, count).astype(spec.dtype)
  low, high = np.maximum(spec.minimum, -1), np.minimum(spec.maximum, 1)
  return rng.uniform(low, high, (count, *spec.shape)).astype(spec.dtype)


def play(environment, steps, seed=0, choose=actions):
  """The time steps of a random policy; the environment is left open."""
  rng = np.random.default_rng(seed)
  time_steps = [environment.reset()]
  for _ in range(steps):
    action = choose(environment.spec().action, environment.num_environments, rng)
    time_steps.append(environment.step(action))
  return time_steps


def column(time_steps, name):
  """`[T, B, ...]`."""
  return np.stack([getattr(time_step, name) for time_step in time_steps])


def check_law(environment, time_steps, *, one_until_the_end=True):
  """Boundaries of episodes, shapes, dtypes and bounds.

  Args:
    environment: is asked for its spec.
    time_steps: of it, from a reset on.
    one_until_the_end: whether only an episode's last discount may be 0.
  """
  count, spec = environment.num_environments, environment.spec()
  for one in (spec.observation, spec.action):
    assert one.dtype.name in ('float32', 'int32', 'uint8', 'bool')
  assert (time_steps[0].step_type == FIRST).all()
  for time_step in time_steps:
    assert time_step.step_type.shape == (count,)
    assert time_step.step_type.dtype == np.int32
    assert time_step.reward.dtype == time_step.discount.dtype == np.float32
    assert time_step.reward.shape == time_step.discount.shape == (count,)
    assert time_step.observation.flags.c_contiguous
    for row in time_step.observation:
      spec.observation.validate(row)
    first = time_step.step_type == FIRST
    assert (time_step.reward[first] == 0).all()
    assert (time_step.discount[first] == 1).all()
    assert np.isin(time_step.discount, [0, 1]).all()
    if one_until_the_end:
      assert (time_step.discount[time_step.step_type == MID] == 1).all()
  for before, after in itertools.pairwise(time_steps):
    np.testing.assert_array_equal(before.step_type == LAST, after.step_type == FIRST)
