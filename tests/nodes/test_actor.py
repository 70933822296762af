"""The actor: writes what one environment after the other would, and counts it."""

from __future__ import annotations

import threading

import dm_env
import numpy as np
import pytest

from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import DmEnvVector
from tests.nodes.small import (
  Countdown,
  Loop,
  Records,
  Source,
  Watched,
  agent,
  countdowns,
  eventually,
)

FIRST, LAST = dm_env.StepType.FIRST, dm_env.StepType.LAST
GAMMA = 0.9
COLUMNS = ('observation', 'action', 'reward', 'discount', 'next_observation')

pytestmark = pytest.mark.timeout(60)


class Inserts:
  """In the replay's place: keeps the blocks, and holds back who brings too many."""

  def __init__(self, limit=10**6):
    self._limit, self._cancelled = limit, threading.Event()
    self.blocks = []
    self.waits = threading.Event()

  def insert(self, table, columns, priorities=None):
    assert (table, priorities) == ('t', None)
    if len(self.blocks) >= self._limit:
      self.waits.set()
      self._cancelled.wait()
      raise CallCancelled('this node is stopping')
    self.blocks.append(columns)
    return len(columns['reward'])

  def cancel(self):
    self._cancelled.set()


class Stage:
  """An actor and all that it works with."""

  def __init__(self, replay=None, *, n_step=2, source=None, make=countdowns, **options):
    self.counter, self.records = Counter(), Records()
    self.replay = replay or Inserts()
    self.source = source or Source(mean=1.5)

    def watched(num_environments, seed):
      self.environment = Watched(make(num_environments, seed))
      return self.environment

    options = {'num_environments': 3, 'block_length': 8, 'seed': 2, **options}
    self.actor = Actor(
      agent(n_step),
      watched,
      self.replay,
      self.source,
      self.counter,
      self.records,
      **options,
    )

  def play(self, blocks):
    """Plays until so many blocks were inserted and the next one is held back."""
    self.replay._limit = blocks
    with Loop(self.actor) as loop:
      assert self.replay.waits.wait(20)
      loop.stop.set()
      self.replay.cancel()
    error = loop.ended.exception(0)
    assert error is None or isinstance(error, CallCancelled)
    return self.replay.blocks

  def steps(self):
    """Steps taken of all environments: time steps that aren't FIRST."""
    return sum(int((t.step_type != FIRST).sum()) for t in self.environment.time_steps)

  def returns(self):
    """Of every episode that has ended, in order, by adding up alone."""
    so_far = np.zeros(self.environment.num_environments)
    returns = []
    for time_step in self.environment.time_steps:
      so_far = np.where(time_step.step_type == FIRST, 0, so_far + time_step.reward)
      returns += so_far[time_step.step_type == LAST].tolist()
    return returns


def alone(seed, steps, n_step, action=1):
  """What an actor of one environment writes in so many steps, one after the other."""
  environment = Countdown(seed)
  episode, rows = [environment.reset()], []

  def write(start):
    ahead = episode[start + 1 : start + 1 + n_step]
    reward, discount = 0.0, 1.0
    for time_step in ahead:
      reward += discount * time_step.reward
      discount *= GAMMA * time_step.discount
    first, last = episode[start].observation, ahead[-1].observation
    rows.append((*first, action, reward, discount, *last))

  for _ in range(steps):
    if episode[-1].last():
      episode = [environment.reset()]
      continue
    episode.append(environment.step(action))
    if episode[-1].last():
      for start in range(max(0, len(episode) - 1 - n_step), len(episode) - 1):
        write(start)
    elif len(episode) > n_step:
      write(len(episode) - 1 - n_step)
  return rows


# What it writes.


@pytest.mark.parametrize('n_step', [1, 2, 4])
@pytest.mark.parametrize('num_environments', [1, 3])
@pytest.mark.parametrize('block_length', [1, 7])
def test_the_replay_gets_what_each_environment_alone_would_write(
  n_step, num_environments, block_length
):
  stage = Stage(
    n_step=n_step, num_environments=num_environments, block_length=block_length
  )
  blocks = stage.play(blocks=40 // block_length)
  written = {
    name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]
  }
  rows = list(zip(*(written[name] for name in COLUMNS), strict=True))
  total = 0
  for index in range(num_environments):
    # A Countdown shows its seed.
    mine = [(*o, a, r, d, *p) for o, a, r, d, p in rows if o[0] == 200 + index]
    expected = alone(200 + index, 400, n_step)[: len(mine)]
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)
    total += len(mine)
  assert total == len(rows) > 20


def test_columns_are_those_of_the_table():
  stage = Stage()
  for block in stage.play(blocks=3):
    columns = agent().tables[0].columns
    assert set(block) == set(columns)
    for name, spec in columns.items():
      assert block[name].shape[1:] == spec.shape
      assert block[name].dtype == spec.dtype


def test_actions_are_those_of_the_policy_by_its_parameters():
  stage = Stage(source=Source(mean=2.2))
  stage.play(blocks=2)
  assert {int(a) for action in stage.environment.actions for a in action} == {2}


def test_environments_are_made_with_its_number_and_seed():
  seen = []

  def make(num_environments, seed):
    seen.append((num_environments, seed))
    return countdowns(num_environments, seed)

  Stage(make=make, num_environments=5, seed=77)
  assert seen == [(5, 77)]


def test_a_block_has_at_least_one_step():
  with pytest.raises(UsageError, match='block_length is 0, expected at least 1'):
    Stage(block_length=0)


# What it counts.


@pytest.mark.parametrize('report_period', [0.0, 0.01, 1000.0])
def test_steps_and_episodes_are_counted_exactly(report_period):
  stage = Stage(report_period=report_period)
  stage.play(blocks=6)
  assert stage.counter.counts() == {
    'actor_steps': stage.steps(),
    'episodes': len(stage.returns()),
  }
  taken = 3 * len(stage.environment.actions)
  assert stage.steps() < taken  # A FIRST step is none of the environment's.
  assert len(stage.returns()) > 10


def test_returns_are_reported_as_the_mean_of_what_has_ended():
  stage = Stage(report_period=0.0, block_length=4, num_environments=2)
  stage.play(blocks=5)
  means, seen = [], 0
  ended = [int((t.step_type == LAST).sum()) for t in stage.environment.time_steps[1:]]
  for start in range(0, len(ended), 4):
    count = sum(ended[start : start + 4])
    if count:
      means.append(np.mean(stage.returns()[seen : seen + count]))
    seen += count
  np.testing.assert_allclose(stage.records.all('return'), means, rtol=1e-6)
  assert {(role, index) for role, _, index in stage.records.calls} == {('actor', 2)}
  assert all(0 <= age < 60 for age in stage.records.all('parameter_age'))


def test_what_was_played_is_counted_while_the_replay_holds_it_back():
  stage = Stage(Inserts(limit=2), report_period=0.0)
  with Loop(stage.actor) as loop:
    assert stage.replay.waits.wait(20)
    # Two blocks are stored, the third waits, and the fourth is played meanwhile.
    eventually(lambda: len(stage.environment.actions) == 32)
    eventually(lambda: stage.counter.counts()['actor_steps'] == stage.steps())
    loop.stop.set()
    stage.replay.cancel()


# Waiting and ending.


def test_a_replay_that_holds_back_holds_the_actor():
  stage = Stage(Inserts(limit=2))
  with Loop(stage.actor) as loop:
    assert stage.replay.waits.wait(20)
    eventually(lambda: len(stage.environment.actions) == 4 * 8)
    assert not stage.replay._cancelled.wait(0.1)
    assert len(stage.environment.actions) == 4 * 8
    assert not loop.ended.done()
    stage.replay.cancel()
    assert isinstance(loop.ended.exception(20), CallCancelled)
  assert stage.counter.counts()['actor_steps'] == stage.steps()


def test_an_insert_that_fails_surfaces_and_what_was_played_is_counted():
  class Failing(Inserts):
    def insert(self, table, columns, priorities=None):
      raise ConnectionError('the replay is gone')

  stage = Stage(Failing())
  with Loop(stage.actor) as loop, pytest.raises(ConnectionError, match='is gone'):
    loop.ended.result(20)
  assert stage.counter.counts()['actor_steps'] == stage.steps() > 0


def test_an_environment_that_fails_surfaces():
  class Breaking(Countdown):
    def step(self, action):
      if self._clock > 20:
        raise RuntimeError('the simulator has crashed')
      return super().step(action)

  def make(num_environments, seed):
    return DmEnvVector([Breaking(0)])

  stage = Stage(make=make, num_environments=1)
  with Loop(stage.actor) as loop, pytest.raises(RuntimeError, match='has crashed'):
    loop.ended.result(20)
  assert stage.counter.counts()['actor_steps'] == stage.steps() > 0


def test_a_learner_that_fails_surfaces():
  class Failing(Source):
    def parameters(self, known=-1):
      raise ConnectionError('the learner is gone')

  stage = Stage(source=Failing())
  with Loop(stage.actor) as loop, pytest.raises(ConnectionError, match='is gone'):
    loop.ended.result(20)
  assert stage.counter.counts() == {}


def test_a_stop_ends_it_within_a_block():
  stage = Stage(block_length=10**9)
  with Loop(stage.actor) as loop:
    eventually(lambda: len(stage.environment.time_steps) > 5)
  loop.ended.result(0)
  assert stage.replay.blocks == []
  assert stage.counter.counts()['actor_steps'] == stage.steps()


def test_closing_closes_the_environments():
  stage = Stage()
  stage.actor.close()
  assert stage.environment.closed


# Parameters.


def test_parameters_are_refreshed_by_version_in_the_background():
  source = Source(mean=0.0, version=10)
  stage = Stage(source=source, update_period=0.0)

  def latest():
    return int(stage.environment.actions[-1][0])

  with Loop(stage.actor):
    eventually(lambda: stage.environment.actions and latest() == 0)
    source.publish(1.0, 20)
    eventually(lambda: latest() == 1)
    source.publish(2.0, 30)
    eventually(lambda: latest() == 2)
  assert set(source.asked) == {-1, 10, 20, 30}
  actions = [int(action[0]) for action in stage.environment.actions]
  assert actions == sorted(actions)


def test_a_slow_learner_does_not_hold_the_actor_up():
  let = threading.Event()

  class Slow(Source):
    def parameters(self, known=-1):
      newer = super().parameters(known)
      if known >= 0:
        let.wait(20)
      return newer

  stage = Stage(source=Slow(), update_period=0.0)
  with Loop(stage.actor):
    eventually(lambda: len(stage.source.asked) == 2)
    played = len(stage.environment.actions)
    eventually(lambda: len(stage.environment.actions) > played + 50)
    assert len(stage.source.asked) == 2
    let.set()
