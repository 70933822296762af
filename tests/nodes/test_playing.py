"""Playing a policy: one dispatch a step, and honest returns."""

from __future__ import annotations

import threading

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.playing import EpisodeReturns, jit_policy, play_episodes
from tests.nodes.small import SPEC, Countdown, Watched, countdowns

FIRST, LAST = dm_env.StepType.FIRST, dm_env.StepType.LAST
KEY = jax.random.PRNGKey(0)


def random_policy(params, carry, observation, key):
  """Counts its calls in the carry; observation and parameters don't matter."""
  return jax.random.randint(key, observation.shape[:1], 0, 3), carry + 1, ()


def play(environment, act, params=None, stop=None):
  carry = jnp.zeros(environment.num_environments)
  return play_episodes(act, params, carry, environment, KEY, stop or threading.Event())


def first_episodes(seed, num_environments, actions):
  """One environment after the other: the return of its first episode."""
  returns = []
  for i in range(num_environments):
    environment = Countdown(
      int(np.random.SeedSequence(seed).generate_state(num_environments)[i])
    )
    time_step, total, taken = environment.reset(), 0.0, iter(actions)
    while not time_step.last():
      time_step = environment.step(next(taken)[i])
      total += time_step.reward
    returns.append(total)
  return returns


# The policy.


def test_every_step_has_a_key_of_its_own():
  act = jit_policy(random_policy)
  observation, carry, key = np.zeros((64, 2), np.float32), jnp.zeros(64), KEY
  seen = []
  for _ in range(3):
    action, carry, key = act(None, carry, observation, key)
    seen.append(np.asarray(action))
  assert (carry == 3).all()
  assert (seen[0] != seen[1]).any()
  assert (seen[1] != seen[2]).any()
  again, _, _ = act(None, jnp.zeros(64), observation, KEY)
  np.testing.assert_array_equal(again, seen[0])


def test_it_is_compiled_once():
  traced = []

  def policy(params, carry, observation, key):
    traced.append(observation.shape)
    return jnp.zeros(observation.shape[:1], jnp.int32), carry, ()

  play(countdowns(3, 0), jit_policy(policy), {'w': np.ones(2, np.float32)})
  assert len(traced) == 1


# Returns.


def step(types, rewards):
  return dm_env.TimeStep(
    np.array(types, np.int32), np.array(rewards, np.float32), None, None
  )


def test_returns_come_out_as_episodes_end():
  returns = EpisodeReturns(2)
  assert returns.observe(step([0, 1], [0, 1])) == []
  assert returns.observe(step([1, 2], [10, 2])) == [3.0]
  assert returns.observe(step([2, 0], [5, 0])) == [15.0]
  assert returns.observe(step([0, 2], [0, -1])) == [-1.0]
  assert returns.observe(step([2, 0], [7, 0])) == [7.0]
  assert returns.observe(step([0, 2], [0, 4])) == [4.0]


def test_two_that_end_together_both_count():
  returns = EpisodeReturns(3)
  assert returns.observe(step([2, 1, 2], [1, 2, 3])) == [1.0, 3.0]


def test_returns_are_those_of_each_environment_alone():
  environment = countdowns(4, 0)
  returns = EpisodeReturns(4)
  alone, so_far, expected = [], np.zeros(4), []
  time_step = environment.reset()
  for t in range(60):
    time_step = environment.step(np.full(4, t % 3))
    alone += returns.observe(time_step)
    for b in range(4):
      if time_step.step_type[b] == FIRST:
        so_far[b] = 0
      so_far[b] += time_step.reward[b]
      if time_step.step_type[b] == LAST:
        expected.append(so_far[b])
  assert len(expected) > 40
  np.testing.assert_allclose(alone, expected, rtol=1e-6)


# Episodes.


@pytest.mark.parametrize('num_environments', [1, 5])
def test_each_environment_counts_its_first_episode_alone(num_environments):
  environment = Watched(
    DmEnvVector(
      [
        Countdown(int(seed))
        for seed in np.random.SeedSequence(3).generate_state(num_environments)
      ]
    )
  )
  returns = play(environment, jit_policy(random_policy))
  expected = first_episodes(3, num_environments, environment.actions)
  np.testing.assert_allclose(returns, expected, rtol=1e-6)
  # It goes on no longer than the longest of them.
  ended = np.stack([t.step_type == LAST for t in environment.time_steps])
  assert ended.any(axis=0).all()
  assert not ended[:-1].any(axis=0).all()


def test_environments_are_reset_before_they_are_played():
  environment = Watched(countdowns(2, 0))
  act = jit_policy(random_policy)
  environment.reset()
  environment.step(np.zeros(2, np.int32))
  assert play(environment, act) is not None
  assert play(environment, act) is not None
  assert environment.resets == 3


class Endless(dm_env.Environment):
  """Never ends; sets the stop after some steps."""

  def __init__(self, stop, after):
    self._stop, self._left = stop, after

  def reset(self):
    return dm_env.restart(np.zeros(2, np.float32))

  def step(self, action):
    self._left -= 1
    if not self._left:
      self._stop.set()
    assert self._left > -2, 'it went on behind the stop'
    return dm_env.transition(1.0, np.zeros(2, np.float32))

  def observation_spec(self):
    return SPEC.observation

  def action_spec(self):
    return SPEC.action


@pytest.mark.timeout(60)
def test_a_stop_ends_it_in_the_middle_of_an_episode():
  stop = threading.Event()
  environment = DmEnvVector([Endless(stop, after=7)])
  assert play(environment, jit_policy(random_policy), stop=stop) is None
