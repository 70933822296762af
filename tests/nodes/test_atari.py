"""Atari's preprocessing: against Gymnasium's, and against what a replay asks of it."""

from __future__ import annotations

import contextlib
import os

import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium.wrappers import AtariPreprocessing

from callsheet.agents.base import EnvironmentSpec, NStep
from callsheet.agents.step_tables import step_table
from callsheet.nodes.atari import MakeAtari
from callsheet.nodes.named_environments import make_named
from callsheet.nodes.step_writing import StepWriter
from tests.nodes.environment_law import FIRST, LAST, MID, check_law, column, play

BREAKOUT = 'ALE/Breakout-v5'


@contextlib.contextmanager
def made(count=2, seed=0, name=BREAKOUT, **options):
  with contextlib.closing(make_named(name, **options)(count, seed)) as environment:
    yield environment


def scripted(moves):
  """The same moves in every environment, one after the other."""
  rest = iter(moves)
  return lambda spec, count, rng: np.full(count, next(rest), np.int32)


def test_pictures_rewards_and_ends_are_those_of_gymnasium():
  moves = np.random.default_rng(0).integers(0, 4, 250)
  with made(1, repeat_action_probability=0, evaluation=True) as environment:
    time_steps = play(environment, len(moves), choose=scripted(moves))
  base = gymnasium.make(BREAKOUT, frameskip=1, repeat_action_probability=0)
  single = AtariPreprocessing(base, noop_max=0, screen_size=84)
  picture, _ = single.reset(seed=0)
  np.testing.assert_array_equal(time_steps[0].observation[0, ..., -1], picture)
  ended, ends = False, 0
  for move, time_step in zip(moves, time_steps[1:], strict=True):
    if ended:
      picture, _ = single.reset()
      reward, ended = 0, False
    else:
      picture, reward, ended, _, _ = single.step(move)
    ends += ended
    np.testing.assert_array_equal(time_step.observation[0, ..., -1], picture)
    assert time_step.reward[0] == reward
    assert (time_step.step_type[0] == LAST) == ended
  single.close()
  assert ends > 0


def test_a_replay_may_keep_single_frames():
  """The check of `StepWriter`: newest last, the first one repeated at a beginning."""
  with made(2) as environment:
    spec = environment.spec()
    assert spec.observation == specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
    writes = NStep('steps', 1, 0.99, num_stacked=4)
    table = step_table(EnvironmentSpec(spec.observation, spec.action), writes, 100)
    writer = StepWriter(table.steps)
    rng = np.random.default_rng(0)
    before, kinds = environment.reset(), set()
    for _ in range(55):
      for _ in range(4):
        action = rng.integers(0, 4, 2).astype(np.int32)
        after = environment.step(action)
        writer.observe(before, action, after)
        kinds |= set(after.step_type.tolist())
        before = after
      assert writer.take()['observation'].shape[2:] == (84, 84, 1)
  assert kinds == {FIRST, MID, LAST}


def test_stacks_are_the_pictures_of_the_last_steps():
  with made(2, num_stacked=3) as environment:
    time_steps = play(environment, 230)
    check_law(environment, time_steps)
  types, seen = column(time_steps, 'step_type'), column(time_steps, 'observation')
  for which in range(2):
    began = 0
    for t in range(len(types)):
      began = t if types[t, which] == FIRST else began
      for age in range(3):
        np.testing.assert_array_equal(
          seen[t, which, ..., 2 - age], seen[max(t - age, began), which, ..., -1]
        )


@pytest.mark.parametrize(('sticky', 'same'), [(0, True), (0.25, False)])
def test_without_sticky_actions_nothing_is_random(sticky, same):
  moves = [1, 2, 2, 3, 3, 1, 3, 2] * 4
  with made(2, repeat_action_probability=sticky) as environment:
    time_steps = play(environment, len(moves), choose=scripted(moves))
  seen = column(time_steps, 'observation')
  assert (seen[:, 0] == seen[:, 1]).all() == same


@pytest.mark.parametrize(
  ('options', 'clipped'),
  [
    ({}, True),
    ({'reward_clipping': False}, False),
    ({'evaluation': True, 'reward_clipping': True}, False),
  ],
)
def test_rewards_are_clipped_for_training_alone(options, clipped):
  # Shooting in Space Invaders scores by fives.
  moves = [1, 1, 2, 1, 1, 3] * 20
  with made(1, name='ALE/SpaceInvaders-v5', **options) as environment:
    time_steps = play(environment, len(moves), choose=scripted(moves))
  assert column(time_steps, 'reward').max() == (1 if clipped else 10)


def test_a_life_ends_no_episode_but_may_end_what_is_expected():
  moves = [1, 0, 0, 0] * 60

  def types_and_discounts(**options):
    with made(1, repeat_action_probability=0, **options) as environment:
      time_steps = play(environment, len(moves), choose=scripted(moves))
      check_law(environment, time_steps, one_until_the_end=False)
    return column(time_steps, 'step_type')[:, 0], column(time_steps, 'discount')[:, 0]

  types, discounts = types_and_discounts()
  same, lost = types_and_discounts(zero_discount_on_life_loss=True)
  true, kept = types_and_discounts(zero_discount_on_life_loss=True, evaluation=True)
  np.testing.assert_array_equal(types, same)
  np.testing.assert_array_equal(types, true)
  np.testing.assert_array_equal(discounts, kept)
  assert (discounts[types == MID] == 1).all()
  first_end = int(np.argmax(types == LAST))
  assert types[first_end] == LAST
  # Five lives: four are lost on the way, the fifth with the game.
  assert np.flatnonzero(lost[: first_end + 1] == 0).size == 5


def test_an_episode_is_cut_off_after_its_frames():
  with made(2, name='ALE/Pong-v5', max_frames=80) as environment:
    time_steps = play(environment, 45)
    check_law(environment, time_steps)
  types = column(time_steps, 'step_type')
  assert np.flatnonzero((types == LAST).all(axis=1)).tolist() == [20, 41]
  assert (column(time_steps, 'discount') == 1).all()


def test_its_limit_is_half_an_hour():
  assert MakeAtari(BREAKOUT).max_frames == 30 * 60 * 60


def test_action_sets_and_sizes():
  with made(1, full_action_space=True, screen_size=42) as environment:
    assert environment.spec().action == specs.DiscreteArray(18, np.int32)
    assert environment.reset().observation.shape == (1, 42, 42, 4)
  with made(1) as environment:
    assert environment.spec().action.num_values == 4


def test_closing_ends_its_threads_and_may_be_done_twice():
  def threads():
    return len(os.listdir('/proc/self/task'))

  with made(1):
    pass
  before = threads()
  with made(2, num_threads=2) as environment:
    environment.reset()
    assert threads() == before + 2
    environment.close()
    assert threads() == before
