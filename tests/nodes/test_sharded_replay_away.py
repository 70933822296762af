"""Shards that die and come back: the others go on, and nothing is biased for ever."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from dm_env import specs
from scipy import stats

from callsheet import Node, OnFailure, Program
from callsheet.agents.base import Limiter, NStep, Table
from callsheet.calls import call_async
from callsheet.errors import (
  ConnectionLost,
  DeadlineExceeded,
  ReplayTimeout,
  Unavailable,
  UnknownSource,
)
from callsheet.launch import Processes, start
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.sharded_replay import ShardedReplay
from callsheet.nodes.shards import shares
from callsheet.programs.actor_learner import actor_learner
from tests.launch import services
from tests.nodes import small
from tests.nodes.played import cut, play
from tests.nodes.played import table as step_table

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32)}
PRIORITIZED = Table('t', COLUMNS, 90, sampler='prioritized', priority_exponent=1.0)
ERRORS = [ConnectionLost, Unavailable, DeadlineExceeded]


def block(*values):
  return {'x': np.array(values, np.int32)}


class Fragile:
  """A replay behind a connection that can be cut.

  Attributes:
    error: what a call raises before it runs; None for a connection that holds.
    once: by method, what its next call raises alone.
  """

  def __init__(self, tables):
    self.replay, self.error, self.once = NativeReplay(tables), None, {}

  def __getattr__(self, name):
    def call(*args, **options):
      error = self.once.pop(name, None) or self.error
      if error is not None:
        raise error
      return getattr(self.replay, name)(*args, **options)

    return call

  def begin_anew(self):
    self.replay.close()
    self.replay = NativeReplay(list(self.replay._tables.values()))


@pytest.fixture
def fragile():
  """Makes shards of one declaration, and their client."""
  made = []

  def make(table, number=3, **options):
    shards = [Fragile(tables) for tables in shares([table], number)]
    made.extend(shards)
    return ShardedReplay(shards, **{'max_age': 0.0, **options}), shards

  yield make
  for shard in made:
    shard.replay.close()


def fill(shards, each=10):
  """Item `each * i + j` is the j-th of shard i."""
  for i, shard in enumerate(shards):
    shard.insert('t', block(*range(each * i, each * i + each)))


def drawn(replay, count=3000):
  return replay.sample('t', count).batch.data['x'][0]


def evenly(values, expected):
  assert set(np.unique(values).tolist()) == set(expected)
  counts = np.bincount(values)[list(expected)]
  return stats.chisquare(counts).pvalue > 1e-9


@pytest.mark.parametrize('error', ERRORS)
def test_samples_are_drawn_from_the_others_until_it_is_back(fragile, error):
  replay, shards = fragile(Table('t', COLUMNS, 90))
  fill(shards)
  assert evenly(drawn(replay), range(30))
  shards[1].error = error('gone')
  sample = replay.sample('t', 3000)
  assert evenly(sample.batch.data['x'][0], [*range(10), *range(20, 30)])
  np.testing.assert_allclose(sample.batch.probabilities, 1 / 20, rtol=1e-6)
  assert sample.batch.table_size.tolist() == [20]
  shards[1].error = None
  small.eventually(lambda: replay.sample('t', 1).batch.table_size == [30])
  assert evenly(drawn(replay), range(30))


def test_a_batch_is_whole_although_a_shard_goes_while_it_is_drawn(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90))
  fill(shards)
  shards[2].once['sample'] = ConnectionLost('gone')
  sample = replay.sample('t', 300, 2)
  assert sample.keys.shape == (2, 300)
  np.testing.assert_array_equal(
    sample.batch.data['x'], sample.keys // 3 + sample.keys % 3 * 10
  )


def test_a_shard_that_stays_away_is_an_error(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90), max_away=0.1)
  fill(shards)
  shards[1].error = ConnectionLost('gone')
  with pytest.raises(Unavailable, match='shard 1 of the 3 of this replay has not'):
    while True:
      replay.sample('t', 4)
  shards[1].error = None
  small.eventually(lambda: replay.statistics()['t'].size == 30)
  assert evenly(drawn(replay), range(30))


def test_a_block_goes_to_another_shard_once(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90))
  fill(shards, 1)
  shards[1].error = Unavailable('gone')
  for value in range(3, 9):
    assert replay.insert('t', block(value)) == 1
  sizes = [shard.replay.statistics()['t'].size for shard in shards]
  assert sizes[1] == 1 and sum(sizes) == 9
  shards[1].error = None
  small.eventually(lambda: replay._watch.here(1))
  for value in range(9, 15):
    replay.insert('t', block(value))
  assert shards[1].replay.statistics()['t'].size == 3
  assert evenly(drawn(replay), range(15))


def test_a_writer_waits_while_no_shard_answers(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90), 2)
  for shard in shards:
    shard.error = ConnectionLost('gone')
  with pytest.raises(
    ReplayTimeout, match=r'0 were stored.*none of its 2 shards'
  ) as late:
    replay.insert('t', block(1), timeout=0.05)
  assert late.value.done == 0
  with pytest.raises(ReplayTimeout, match='its 0 shards have ; 2 more are away'):
    replay.sample('t', 1, timeout=0.05)
  writing = call_async(replay.insert, 't', block(1))
  shards[1].error = None
  assert writing.result(20) == 1
  assert shards[1].replay.statistics()['t'].size == 1
  replay, shards = fragile(Table('t', COLUMNS, 90), 2, max_away=0.05)
  shards[0].error = shards[1].error = ConnectionLost('gone')
  with pytest.raises(Unavailable, match='of the 2'):
    replay.insert('t', block(1))


@pytest.mark.parametrize('error', ERRORS)
def test_priorities_of_a_shard_that_is_away_are_passed_over(fragile, error):
  replay, shards = fragile(PRIORITIZED)
  fill(shards)
  sample = replay.sample('t', 3000)
  new = np.where(sample.batch.data['x'] % 10 == 3, 1.0, 0.0)
  shards[1].once['update_priorities'] = error('gone')
  replay.update_priorities('t', sample.keys, new)
  small.eventually(lambda: replay._watch.here(1))
  assert set(np.unique(drawn(replay)).tolist()) == {3, *range(10, 20), 23}
  shards[2].error = error('gone')
  replay.update_priorities('t', sample.keys, new)
  assert set(np.unique(drawn(replay)).tolist()) == {3, 13}


@pytest.mark.parametrize('bad', [np.nan, -1.0, np.inf])
def test_bad_priorities_change_nothing(fragile, bad):
  replay, shards = fragile(PRIORITIZED)
  fill(shards)
  keys = replay.sample('t', 300).keys
  new = np.full(keys.shape, 5.0)
  new[keys % 3 == 2] = bad
  with pytest.raises(ValueError, match=r"'t': priorities are finite and at least 0"):
    replay.update_priorities('t', keys, new)
  with pytest.raises(ValueError, match='priorities expected float'):
    replay.update_priorities('t', keys, new[:, :-1])
  assert [shard.statistics()['t'].mass for shard in shards] == [10.0] * 3


def test_a_source_begins_anew_where_its_shard_did(fragile):
  writes = NStep('t', 1, 0.9)
  replay, shards = fragile(step_table(writes), 2)
  before, then, last = cut(play(3, 60, 2), 20, 40)
  with pytest.raises(UnknownSource, match='not known here'):
    replay.append('t', 5, before)
  replay.append('t', 5, before, fresh=True)
  shards[1].begin_anew()
  made = replay.append('t', 5, then)
  alone = NativeReplay([step_table(writes)])
  assert made == alone.append('t', 5, then, fresh=True) > 0
  shards[1].once['append'] = ConnectionLost('gone')
  assert replay.append('t', 5, last) == alone.append('t', 5, last, fresh=True) > 0
  assert shards[1].replay.statistics()['t'].size == alone.statistics()['t'].size
  alone.close()
  shards[1].error = ConnectionLost('gone')
  with pytest.raises(ConnectionLost):
    replay.append('t', 5, last, timeout=0.05)
  shards[1].error = Unavailable('gone for good')
  with pytest.raises(Unavailable, match='gone for good'):
    replay.append('t', 5, last)


def test_statistics_are_of_those_that_answer(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90))
  fill(shards)
  shards[0].error = ConnectionLost('gone')
  assert replay.statistics()['t'].size == 20
  with pytest.raises(ConnectionLost, match='gone'):
    replay.checkpoint()
  shards[1].error = shards[2].error = ConnectionLost('gone')
  with pytest.raises(Unavailable, match='none of the 3 shards'):
    replay.statistics()


def test_a_shard_that_does_not_answer_is_not_waited_for(fragile):
  replay, shards = fragile(Table('t', COLUMNS, 90))
  fill(shards)
  shards[0].replay._guarded['t'].lock.acquire()
  assert evenly(drawn(replay), range(10, 30))
  shards[0].replay._guarded['t'].lock.release()
  small.eventually(lambda: replay.sample('t', 1).batch.table_size == [30])


def test_a_writer_finds_the_shard_with_room(fragile):
  # Each shard takes its 5 items, and 10 more before anything is drawn.
  table = Table('t', COLUMNS, 1000, limiter=Limiter(10, 1.0, 20.0))
  replay, shards = fragile(table, 2)
  shards[0].insert('t', block(*range(15)))
  for value in range(5):
    assert replay.insert('t', block(*range(3 * value, 3 * value + 3))) == 3
  assert [shard.replay.statistics()['t'].size for shard in shards] == [15, 15]
  with pytest.raises(
    ReplayTimeout, match=r'0 were stored in 2 shards.*learner'
  ) as late:
    replay.insert('t', block(1, 2), timeout=0.01)
  assert late.value.done == 0
  shards[0].sample('t', 1)
  shards[1].sample('t', 2)
  with pytest.raises(ReplayTimeout, match='3 were stored in 2 shards') as late:
    replay.insert('t', block(1, 2, 3, 4, 5), timeout=0)
  assert late.value.done == 3
  shards[1].sample('t', 2)
  writing = call_async(replay.insert, 't', block(1, 2, 3))
  shards[0].sample('t', 1)
  assert writing.result(20) == 3


def test_split_blocks_keep_their_priorities(fragile):
  table = Table(
    't',
    COLUMNS,
    1000,
    sampler='prioritized',
    priority_exponent=1.0,
    limiter=Limiter(10, 1.0, 20.0),
  )
  replay, shards = fragile(table, 2)
  values = np.arange(30)
  assert replay.insert('t', block(*values), values.astype(np.float64)) == 30
  masses = [shard.replay.statistics()['t'].mass for shard in shards]
  assert sorted(masses) == [sum(range(15)), sum(range(15, 30))]


def test_what_others_draw_makes_credit_stale_at_once(fragile):
  _, shards = fragile(Table('t', COLUMNS, 90, limiter=Limiter(3, 10.0, 1000.0)))
  asked = []
  ask = shards[0].statistics
  shards[0].statistics = lambda: asked.append(1) or ask()
  one, other = (ShardedReplay(shards, max_age=1e3) for _ in range(2))
  fill(shards)
  for _ in range(5):
    one.sample('t', 20)
  assert len(asked) == 1
  one._watch.look(anew=True)
  one.sample('t', 20)
  assert len(asked) == 2
  other.sample('t', 20)
  one._watch.look(anew=True)
  before = len(asked)
  for _ in range(3):
    one.sample('t', 20)
  assert len(asked) == before + 3


class Mortal(NativeReplay):
  """A replay that tells whom to kill."""

  def pid(self):
    return os.getpid()


def follow(running, condition):
  """Follows a program, which restarts what dies, until the condition holds."""
  while not condition():
    assert not running.wait(0.05)


def test_a_killed_shard_comes_back_with_its_checkpoint(tmp_path):
  program = Program('killed')
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  table = Table('t', COLUMNS, 200, sampler='prioritized', priority_exponent=1.0)
  handles = [
    program.add(
      Node(f'shard{i}', restart=OnFailure(backoff=0.05)),
      Mortal,
      tables,
      checkpoint_directory=str(tmp_path / str(i)),
      restore=True,
    )
    for i, tables in enumerate(shares([table], 2))
  ]
  with start(program, Processes(echo=False)) as running:
    shards = [running.client(handle) for handle in handles]
    replay = ShardedReplay(shards)
    fill(shards, 20)
    keys = replay.sample('t', 400).keys
    replay.checkpoint()
    shards[0].insert('t', block(40))
    os.kill(shards[0].pid(), signal.SIGKILL)
    # Nobody follows the program: it stays away.
    sample = replay.sample('t', 1000)
    assert evenly(sample.batch.data['x'][0], range(20, 40))
    for value in range(41, 45):
      assert replay.insert('t', block(value)) == 1
    replay.update_priorities('t', keys, np.full(keys.shape, 1.0))
    assert replay.statistics()['t'].size == 24
    follow(running, lambda: replay.sample('t', 1).batch.table_size == [44])
    # The item behind the checkpoint is lost, as it would be in one replay.
    assert evenly(drawn(replay), [*range(40), *range(41, 45)])
    replay.insert('t', block(45))
    replay.insert('t', block(46))
    assert [shard.statistics()['t'].size for shard in shards] == [21, 25]
    replay.update_priorities('t', keys, np.zeros(keys.shape))
    values = set(np.unique(drawn(replay)).tolist())
    assert values == set(range(41, 47))


@pytest.mark.timeout(150)  # seven nodes, five of which import JAX
def test_a_program_survives_a_killed_shard(tmp_path):
  program = actor_learner(
    small.agent(),
    small.countdowns,
    num_replays=2,
    num_environments=4,
    updates_per_dispatch=2,
    num_episodes=2,
    make_replay=Mortal,
  )
  with start(program, Processes(echo=False)) as running:
    counter = running.client('counter')
    shard = running.client('replay/0')

    def learnt():
      return counter.counts().get('learner_steps', 0)

    follow(running, learnt)
    os.kill(shard.pid(), signal.SIGKILL)
    before = learnt()
    follow(running, lambda: learnt() > before + 100)
    asked = call_async(shard.statistics)
    follow(running, asked.done)
    assert asked.result()['t'].max_size == 500
    follow(running, lambda: shard.statistics()['t'].sampled > 0)
