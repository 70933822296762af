"""The law item by item, waits with a limit, and what the statistics say meanwhile."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Limiter, Table
from callsheet.calls import call_async
from callsheet.errors import ReplayTimeout
from callsheet.nodes import table_statistics
from callsheet.nodes.limiting import Standing, passing_samples, room
from callsheet.nodes.native_replay import NativeReplay

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32)}
TABLES = [
  Table('t', COLUMNS, 12, limiter=Limiter(3)),
  Table('t', COLUMNS, 12, limiter=Limiter(2, 2.0, 4.0)),
  Table('t', COLUMNS, 12, limiter=Limiter(4, 0.4, 1.5)),
  Table('t', COLUMNS, 12, 'uniform', max_times_sampled=2, limiter=Limiter(2, 1.0, 3.0)),
  Table.queue('t', COLUMNS, 3),
  Table.stack('t', COLUMNS, 3),
]
NAMES = ['min size', 'ratio', 'low ratio', 'two draws', 'queue', 'stack']


def numbers(*values):
  return {'x': np.array(values, np.int32)}


def passes(call, *args, **kwargs):
  try:
    call(*args, **kwargs, timeout=0)
  except ReplayTimeout:
    return False
  return True


def follow(replay, table, steps):
  """Each step passes if and only if the law says so of where the table stands."""
  for value, inserts in enumerate(steps):
    now = replay.statistics()['t']
    at = Standing(now.size, now.inserted, now.sampled)
    if inserts:
      expected = room(table.limiter, at) >= 1
      assert passes(replay.insert, 't', numbers(value)) == expected, at
    else:
      expected = passing_samples(table.limiter, table.max_times_sampled, at) >= 1
      assert passes(replay.sample, 't', 1) == expected, at
    after = replay.statistics()['t']
    assert after.inserted - now.inserted == (inserts and expected)
    assert after.sampled - now.sampled == (not inserts and expected)


@pytest.mark.parametrize('table', TABLES, ids=NAMES)
@settings(deadline=None, max_examples=25)
@given(steps=st.lists(st.booleans(), max_size=40))
def test_the_native_engine_keeps_the_law(table, steps):
  replay = NativeReplay([table])
  try:
    follow(replay, table, steps)
  finally:
    replay.close()


@pytest.mark.parametrize('table', TABLES, ids=NAMES)
@pytest.mark.parametrize('seed', [0, 1])
def test_every_engine_keeps_the_law(engine, table, seed):
  generator = np.random.default_rng(seed)
  follow(engine([table]), table, (generator.random(60) < 0.6).tolist())


@pytest.mark.parametrize(
  ('make', 'expected'), [(Table.queue, [0, 1, 2, 3]), (Table.stack, [3, 2, 1, 0])]
)
def test_queue_and_stack_hand_over_in_their_order(engine, make, expected):
  replay = engine([make('t', COLUMNS, 4)])
  replay.insert('t', numbers(0, 1, 2, 3))
  assert not passes(replay.insert, 't', numbers(4))
  assert replay.sample('t', 4).batch.data['x'][0].tolist() == expected
  assert not passes(replay.sample, 't', 1)
  assert replay.statistics()['t'].size == 0


def test_a_queue_takes_blocks_larger_than_itself_with_a_reader_beside(engine):
  replay = engine([Table.queue('t', COLUMNS, 5)])
  writing = call_async(replay.insert, 't', numbers(*range(40)))
  seen = [replay.sample('t', 4, timeout=20).batch.data['x'][0] for _ in range(10)]
  assert writing.result() == 40
  assert np.concatenate(seen).tolist() == list(range(40))


def test_a_sample_in_vain_says_who_is_missing(engine):
  replay = engine([Table('few', COLUMNS, 200, limiter=Limiter(100))])
  replay.insert('few', numbers(1, 2, 3))
  message = (
    r"table 'few': no sample within 0.02 s \(0 of 4 were drawn\): "
    r'3 of min_size 100 items are there; is an actor writing\?'
  )
  with pytest.raises(ReplayTimeout, match=message) as caught:
    replay.sample('few', 4, timeout=0.02)
  assert isinstance(caught.value, TimeoutError) and caught.value.done == 0
  assert replay.statistics()['few'].sampled == 0


def test_what_was_drawn_or_stored_in_time_counts(engine):
  table = Table('t', COLUMNS, 50, limiter=Limiter(2, 2.0, 4.0))
  replay = engine([table])
  fits = int(room(table.limiter, Standing(0, 0, 0)))
  with pytest.raises(
    ReplayTimeout, match=rf'{fits} of 30 were stored.*learner'
  ) as late:
    replay.insert('t', numbers(*range(30)), timeout=0.05)
  assert late.value.done == fits == replay.statistics()['t'].inserted
  credit = int(replay.statistics()['t'].credit)
  with pytest.raises(ReplayTimeout, match=rf'{credit} of 60 were drawn.*actor') as late:
    replay.sample('t', 60, timeout=0.05)
  assert late.value.done == credit == replay.statistics()['t'].sampled


@pytest.mark.parametrize('timeout', [-1, math.nan])
def test_a_timeout_is_at_least_zero(engine, timeout):
  replay = engine([Table('t', COLUMNS, 5)])
  with pytest.raises(ValueError, match='timeout expected seconds of at least 0'):
    replay.sample('t', 1, timeout=timeout)
  with pytest.raises(ValueError, match='timeout expected'):
    replay.insert('t', numbers(1), timeout=timeout)


def test_who_waits_shows_and_goes_again(engine):
  replay = engine([Table('t', COLUMNS, 50, limiter=Limiter(2, 1.0, 2.0))])
  sampling = [call_async(replay.sample, 't', 1) for _ in range(2)]
  wait_for(replay, lambda now: now.waiting_samplers == 2)
  assert replay.statistics()['t'].samplers_blocked_seconds > 0
  writing = call_async(replay.insert, 't', numbers(*range(40)))
  wait_for(replay, lambda now: now.waiting_writers == 1 and not now.waiting_samplers)
  for call in sampling:
    call.result()
  while not writing.done():
    passes(replay.sample, 't', 1)
  now = replay.statistics()['t']
  assert (now.waiting_writers, now.waiting_samplers) == (0, 0)
  assert (now.writers_blocked_seconds, now.samplers_blocked_seconds) == (0, 0)


def wait_for(replay, condition):
  until = time.monotonic() + 20
  while not condition(replay.statistics()['t']):
    assert time.monotonic() < until
    time.sleep(0.005)


def test_rates_look_back_on_what_came_since(engine, monkeypatch):
  clock = 1000.0
  monkeypatch.setattr(table_statistics.time, 'monotonic', lambda: clock)
  replay = engine([Table('t', COLUMNS, 50)])
  replay.insert('t', numbers(*range(40)))
  replay.sample('t', 10)
  clock += 2.0
  now = replay.statistics()['t']
  assert (now.inserts_per_second, now.samples_per_second) == (20.0, 5.0)


def test_the_mass_is_what_is_drawn_in_proportion_to(engine):
  replay = engine(
    [
      Table('u', COLUMNS, 5),
      Table('t', COLUMNS, 5, sampler='prioritized', priority_exponent=2.0),
    ]
  )
  priorities = np.array([1.0, 2.0, 3.0])
  for name in ('u', 't'):
    replay.insert(name, numbers(1, 2, 3), priorities)
    replay.sample(name, 1)
  now = replay.statistics()
  assert now['u'].mass == 3.0 and now['t'].mass == pytest.approx(14.0, rel=1e-5)
  assert now['u'].bytes > 0


def test_the_native_engine_knows_the_age_of_what_it_draws():
  replay = NativeReplay([Table('t', COLUMNS, 100, sampler='fifo')])
  assert math.isnan(replay.statistics()['t'].sample_age)
  replay.insert('t', numbers(*range(31)))
  replay.sample('t', 5)
  now = replay.statistics()['t']
  assert (now.sample_age, now.oldest_sample_age) == (30.0, 30.0)
  replay.close()


@pytest.mark.parametrize('remover', ['fifo', 'lifo', 'uniform', 'min_heap', 'max_heap'])
def test_keys_of_items_that_left_are_passed_over(engine, remover):
  table = Table('t', COLUMNS, 4, 'prioritized', 1.0, remover=remover)
  replay = engine([table])
  replay.insert('t', numbers(0, 1, 2, 3), np.ones(4))
  old = replay.sample('t', 50)
  replay.insert('t', numbers(*range(4, 40)), np.linspace(2, 3, 36))
  stayed = set(old.keys.ravel().tolist()) & set(replay.sample('t', 300).keys.ravel())
  replay.update_priorities('t', old.keys, np.full(old.keys.shape, 5.0))
  # The old ones that are still there have 5, and whoever took a slot what it came with.
  drawn = replay.sample('t', 300)
  values, keys = drawn.batch.data['x'][0], drawn.keys[0].tolist()
  weights = {
    key: 5.0 if key in stayed else np.linspace(2, 3, 36)[value - 4]
    for key, value in zip(keys, values.tolist(), strict=True)
  }
  assert len(weights) == replay.statistics()['t'].size == 4
  shares = [weights[key] / sum(weights.values()) for key in keys]
  np.testing.assert_allclose(drawn.batch.probabilities[0], shares, rtol=1e-4)
