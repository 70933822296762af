"""n-step transitions: the same as one by one, on any stream of time steps."""

from __future__ import annotations

import itertools

import dm_env
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import NStep
from callsheet.nodes.writing import NStepWriter, n_step_transitions

FIRST, MID, LAST = 0, 1, 2
GAMMA = 0.9


def stream(seed, steps, environments, end_rate=0.3):
  """Time steps of B environments and the actions between them, by dm_env's law."""
  rng = np.random.default_rng(seed)
  step_type = np.full(environments, FIRST, np.int32)
  time_steps, actions = [], []
  for t in range(steps + 1):
    first = step_type == FIRST
    ends = step_type == LAST
    discount = np.where(ends, rng.integers(0, 2, environments), 1)
    middle = rng.choice([1.0, 0.5], environments)  # dm_env allows any discount.
    time_steps.append(
      dm_env.TimeStep(
        step_type=step_type,
        reward=np.where(first, 0, rng.normal(size=environments)).astype(np.float32),
        discount=np.where(step_type == MID, middle, discount).astype(np.float32),
        observation=np.stack(
          [np.full(environments, t), np.arange(environments)], axis=-1
        ).astype(np.float32),
      )
    )
    actions.append(rng.integers(0, 5, environments).astype(np.int32))
    going = np.where(rng.random(environments) < end_rate, LAST, MID)
    step_type = np.where(ends, FIRST, going).astype(np.int32)
  return time_steps, actions[:-1]


def one_by_one(time_steps, actions, n, end):
  """What an actor of a single environment would write, for each, as sorted rows."""
  rows = []
  for b in range(len(time_steps[0].reward)):
    episode = []
    episodes = [episode]
    for t, time_step in enumerate(time_steps):
      if time_step.step_type[b] == FIRST and t:
        episode = []
        episodes.append(episode)
      episode.append(t)
    for episode in episodes:
      over = time_steps[episode[-1]].step_type[b] == LAST
      for position, start in enumerate(episode[:-1]):
        ahead = episode[position + 1 :][:n]
        if len(ahead) < n and not (over or end):
          continue
        reward, discount = 0.0, 1.0
        for t in ahead:
          reward += discount * float(time_steps[t].reward[b])
          discount *= GAMMA * float(time_steps[t].discount[b])
        rows.append(
          (
            *time_steps[start].observation[b],
            actions[start][b],
            reward,
            discount,
            *time_steps[ahead[-1]].observation[b],
          )
        )
  return np.array(sorted(rows)).reshape(-1, 7)


def rows_of(blocks):
  rows = [
    (*o, a, r, d, *p)
    for block in blocks
    if block is not None
    for o, a, r, d, p in zip(
      block['observation'],
      block['action'],
      block['reward'],
      block['discount'],
      block['next_observation'],
      strict=True,
    )
  ]
  return np.array(sorted(rows)).reshape(-1, 7)


@settings(max_examples=150, deadline=None)
@given(
  seed=st.integers(0, 2**32 - 1),
  steps=st.integers(1, 25),
  environments=st.integers(1, 4),
  n=st.integers(1, 7),
  end_rate=st.sampled_from([0.0, 0.3, 1.0]),
  takes=st.sets(st.integers(0, 24)),
  end=st.booleans(),
)
def test_the_same_as_one_by_one(seed, steps, environments, n, end_rate, takes, end):
  time_steps, actions = stream(seed, steps, environments, end_rate)
  writer = NStepWriter(NStep('t', n, GAMMA))
  blocks = []
  for t in range(steps):
    writer.observe(time_steps[t], actions[t], time_steps[t + 1])
    if t in takes:
      blocks.append(writer.take())
  blocks.append(writer.take(end=end))
  expected = one_by_one(time_steps, actions, n, end)
  np.testing.assert_allclose(rows_of(blocks), expected, rtol=1e-4, atol=1e-6)
  assert writer.take() is None


def steps_of(types, rewards, discounts):
  return [
    dm_env.TimeStep(
      np.array([kind], np.int32),
      np.array([reward], np.float32),
      np.array([discount], np.float32),
      np.array([[float(t)]], np.float32),
    )
    for t, (kind, reward, discount) in enumerate(
      zip(types, rewards, discounts, strict=True)
    )
  ]


def write(time_steps, n, *, end=False):
  writer = NStepWriter(NStep('t', n, 0.5))
  for before, after in itertools.pairwise(time_steps):
    writer.observe(before, np.array([7], np.int32), after)
  return writer.take(end=end)


@pytest.mark.parametrize(('discount', 'left'), [(0.0, 0.0), (1.0, 1.0)])
def test_an_episode_shorter_than_n_bootstraps_as_it_ended(discount, left):
  block = write(steps_of([FIRST, MID, LAST], [0, 1, 2], [1, 1, discount]), n=5)
  assert block is not None
  np.testing.assert_allclose(block['reward'], [1 + 0.5 * 2, 2])
  np.testing.assert_allclose(block['discount'], [0.25 * left, 0.5 * left])
  np.testing.assert_allclose(block['next_observation'], [[2], [2]])
  assert block['reward'].dtype == block['discount'].dtype == np.float32
  assert block['action'].dtype == np.int32


def test_nothing_leads_from_one_episode_into_the_next():
  types = [FIRST, LAST, FIRST, LAST]
  block = write(steps_of(types, [0, 1, 0, 1], [1, 1, 1, 1]), n=3)
  assert block is not None
  np.testing.assert_allclose(block['observation'], [[0], [2]])
  np.testing.assert_allclose(block['next_observation'], [[1], [3]])


def test_only_the_end_writes_what_is_short_of_n():
  time_steps = steps_of([FIRST, MID, MID], [0, 1, 1], [1, 1, 1])
  assert write(time_steps, n=3) is None
  block = write(time_steps, n=3, end=True)
  assert block is not None
  np.testing.assert_allclose(block['discount'], [0.25, 0.5])
  np.testing.assert_allclose(block['next_observation'], [[2], [2]])


def test_time_steps_must_follow_each_other():
  a, b, c = steps_of([FIRST, MID, FIRST], [0, 1, 0], [1, 1, 1])
  writer = NStepWriter(NStep('t', 3, 0.5))
  writer.observe(a, np.array([0]), b)
  with pytest.raises(ValueError, match=r'take\(end=True\)'):
    writer.observe(c, np.array([0]), a)
  assert writer.take(end=True) is not None
  writer.observe(c, np.array([0]), b)


def test_what_is_kept_does_not_grow():
  time_steps, actions = stream(0, 50, 2, end_rate=0.0)
  writer = NStepWriter(NStep('t', 3, GAMMA))
  sizes = []
  for t in range(50):
    writer.observe(time_steps[t], actions[t], time_steps[t + 1])
    block = writer.take()
    sizes.append(0 if block is None else len(block['reward']))
  assert sizes == [0, 0] + [2] * 48


def test_the_window_tells_length_and_completeness():
  window = n_step_transitions(
    step_type=np.array([[FIRST], [MID], [LAST], [FIRST], [MID]]),
    reward=np.ones((4, 1), np.float32),
    discount=np.ones((4, 1), np.float32),
    n_step=2,
    gamma=0.5,
  )
  assert window.length[:, 0].tolist() == [2, 1, 0, 1]
  assert window.complete[:, 0].tolist() == [True, True, False, False]
  np.testing.assert_allclose(window.reward[:, 0], [1.5, 1, 0, 1])
