"""How every replay engine holds actors and learners in proportion."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Limiter, Table
from callsheet.calls import call_async
from callsheet.errors import CallCancelled
from callsheet.nodes.limiting import Standing, credit, room

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32)}
LIMITERS = [
  Limiter(4, 1.0, 1.0),
  Limiter(1, 4.0, 4.0),
  Limiter(5, 0.3, 1.0),
  Limiter(3, 2.5, 7.0),
  Limiter(10, 8.0, None),
]


def numbers(count):
  return {'x': np.arange(count, dtype=np.int32)}


def wait_for(replay, **expected):
  """Waits until the table's statistics are those, and sees that they stay."""

  def now():
    statistics = replay.statistics()['t']
    return {name: getattr(statistics, name) for name in expected}

  while now() != expected:
    time.sleep(0.005)
  time.sleep(0.05)
  assert now() == expected


@pytest.mark.parametrize('limiter', LIMITERS, ids=str)
def test_a_writer_waits_at_the_upper_bound_and_goes_on(engine, limiter):
  replay = engine([Table('t', COLUMNS, 1000, limiter=limiter)])
  most = int(room(limiter, Standing(0, 0, 0)))
  writing = call_async(replay.insert, 't', numbers(most + 30))
  wait_for(replay, inserted=most, size=most, sampled=0, state='actors wait')
  replay.sample('t', 7)
  more = int(room(limiter, Standing(most, most, 7)))
  if more < 30:
    wait_for(replay, inserted=most + more, sampled=7, state='actors wait')
  while not writing.done():
    if replay.statistics()['t'].credit >= 1:
      replay.sample('t', 1)
  assert writing.result() == most + 30
  wait_for(replay, inserted=most + 30, size=most + 30)


@pytest.mark.parametrize('limiter', LIMITERS, ids=str)
def test_a_sampler_waits_at_the_lower_bound_and_goes_on(engine, limiter):
  replay = engine([Table('t', COLUMNS, 1000, limiter=limiter)])
  size = limiter.min_size
  replay.insert('t', numbers(size))
  most = int(credit(limiter, Standing(size, size, 0)))
  assert replay.statistics()['t'].credit == most
  sampling = call_async(replay.sample, 't', most + 20)
  wait_for(replay, inserted=size, sampled=most, credit=0.0, state='learner waits')
  inserted = size
  while not sampling.done():
    if replay.statistics()['t'].state == 'learner waits':
      inserted += replay.insert('t', numbers(1))
  assert sampling.result().keys.shape == (1, most + 20)
  wait_for(replay, inserted=inserted, sampled=most + 20)


@pytest.mark.parametrize('limiter', LIMITERS, ids=str)
def test_two_writers_and_two_samplers_keep_the_ratio(engine, limiter):
  replay = engine([Table('t', COLUMNS, 1000, limiter=limiter)])
  blocks = [limiter.min_size + 60] * 2
  samples = int(credit(limiter, Standing(sum(blocks), sum(blocks), 0)))
  halves = [samples // 2, samples - samples // 2]
  writing = [call_async(replay.insert, 't', numbers(block)) for block in blocks]
  sampling = [call_async(replay.sample, 't', half) for half in halves]
  assert [call.result() for call in writing] == blocks
  assert [call.result().keys.size for call in sampling] == halves
  now = replay.statistics()['t']
  assert (now.inserted, now.sampled, now.credit) == (sum(blocks), samples, 0)
  assert now.samples_per_insert == samples / sum(blocks)


def test_nothing_is_drawn_before_the_minimal_size(engine):
  replay = engine([Table('t', COLUMNS, 100, limiter=Limiter(min_size=5))])
  assert replay.statistics()['t'].state == 'filling'
  replay.insert('t', numbers(4))
  sampling = call_async(replay.sample, 't', 3)
  wait_for(replay, inserted=4, sampled=0, credit=0.0, state='filling')
  replay.insert('t', numbers(1))
  assert sampling.result().batch.table_size.tolist() == [5]
  wait_for(replay, sampled=3, credit=float('inf'), state='open')


def test_a_queue_hands_over_each_item_once(engine):
  limiter = Limiter(1, 1.0, 10.0)
  table = Table('t', COLUMNS, 1000, max_times_sampled=1, limiter=limiter)
  replay = engine([table])
  writing = call_async(replay.insert, 't', numbers(200))
  seen = np.concatenate([replay.sample('t', 20).batch.data['x'][0] for _ in range(10)])
  assert writing.result() == 200
  assert sorted(seen.tolist()) == list(range(200))


def test_close_ends_every_caller_that_waits(engine):
  table = Table('t', COLUMNS, 100, limiter=Limiter(2, 1.0, 1.0))
  starving = Table('s', COLUMNS, 100, limiter=Limiter(50))
  replay = engine([table, starving])
  before = set(threading.enumerate())
  waiting = [call_async(replay.insert, 't', numbers(50)) for _ in range(3)]
  waiting += [call_async(replay.sample, 's', 4) for _ in range(3)]
  wait_for(replay, state='actors wait')
  replay.close()
  for call in waiting:
    with pytest.raises(CallCancelled, match='replay is stopping'):
      call.result(10)
  for method, arguments in (
    (replay.insert, ('t', numbers(1))),
    (replay.sample, ('t', 1)),
    (replay.update_priorities, ('t', np.ones(1, np.uint64), np.ones(1))),
    (replay.statistics, ()),
  ):
    with pytest.raises(CallCancelled, match='replay is stopping'):
      method(*arguments)
  for thread in set(threading.enumerate()) - before:
    thread.join(10)
    assert not thread.is_alive()
  replay.close()
