"""Samplers and removers of every replay engine, held to the same table."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from dm_env import specs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from callsheet.agents.base import Table
from callsheet.nodes.native_replay import NativeReplay
from tests.nodes.one_by_one import OneByOne

pytestmark = pytest.mark.timeout(120)

NUMBER = {'x': specs.Array((), np.int32)}
ORDERS = ('fifo', 'lifo', 'min_heap', 'max_heap')
SELECTORS = ('uniform', 'prioritized', *ORDERS)

PRIORITIES = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5])


def numbers(*values):
  return {'x': np.array(values, np.int32)}


def drawn_from(replay, count):
  """Pairs of a value and how many items there were, and the keys."""
  values, sizes, keys = [], [], []
  for _ in range(count):
    sample = replay.sample('t', 1)
    assert sample.batch.probabilities.tolist() == [[1.0]]
    values.append(sample.batch.data['x'].item())
    sizes.append(sample.batch.table_size.item())
    keys.append(sample.keys.item())
  return list(zip(values, sizes, strict=True)), keys


def follow(replay, table, data, steps):
  """Does the same to both, whatever it is."""
  model, key_of, next_value = OneByOne(table), {}, 0
  for _ in range(steps):
    action = data.draw(st.sampled_from(['insert', 'insert', 'sample', 'update']))
    if action == 'insert':
      count = data.draw(st.integers(1, 2 * table.max_size + 1))
      values = list(range(next_value, next_value + count))
      next_value += count
      some = st.lists(PRIORITIES, min_size=count, max_size=count)
      priorities = data.draw(st.none() | some)
      model.insert(values, priorities)
      given = None if priorities is None else np.array(priorities)
      assert replay.insert('t', numbers(*values), given) == count
    elif action == 'sample' and model.items:
      most = model.left() if table.max_times_sampled else 2 * table.max_size
      count = data.draw(st.integers(1, most))
      expected = model.sample(count)
      sample = replay.sample('t', count)
      assert sample.batch.data['x'][0].tolist() == [value for value, _ in expected]
      assert sample.batch.table_size.tolist() == [expected[-1][1]]
      assert sample.batch.probabilities.tolist() == [[1.0] * count]
      key_of.update(zip((v for v, _ in expected), sample.keys[0], strict=True))
    elif action == 'update' and key_of:
      values = data.draw(st.lists(st.sampled_from(sorted(key_of)), max_size=6))
      some = st.lists(PRIORITIES, min_size=len(values), max_size=len(values))
      priorities = data.draw(some)
      model.update(values, priorities)
      keys = np.array([key_of[value] for value in values], np.uint64)
      replay.update_priorities('t', keys, np.array(priorities, np.float64))
    now = replay.statistics()['t']
    counts = (len(model.items), model.inserted, model.sampled)
    assert (now.size, now.inserted, now.sampled) == counts
  if table.max_times_sampled:
    assert drawn_from(replay, model.left())[0] == model.sample(model.left())


TABLES = st.builds(
  Table,
  st.just('t'),
  st.just(NUMBER),
  st.integers(1, 6),
  sampler=st.sampled_from(ORDERS),
  max_times_sampled=st.integers(0, 3),
  remover=st.sampled_from(ORDERS),
)


@settings(deadline=None, max_examples=150)
@given(TABLES, st.data())
def test_the_native_engine_is_the_table_one_by_one(table, data):
  follow(NativeReplay([table]), table, data, 12)


@settings(
  deadline=None,
  max_examples=12,
  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=TABLES, data=st.data())
def test_an_engine_is_the_table_one_by_one(engine, table, data):
  replay = engine([table])
  follow(replay, table, data, 8)
  replay.close()


@pytest.mark.parametrize('pair', [*itertools.product(ORDERS, ORDERS)], ids='-'.join)
def test_what_is_left_is_handed_over_in_order(engine, pair):
  sampler, remover = pair
  table = Table('t', NUMBER, 5, sampler, max_times_sampled=2, remover=remover)
  replay, model = engine([table]), OneByOne(table)
  priorities = [2.0, 1.0, 3.0, 0.5, 4.0, 1.0, 1.0, 3.0, 3.0, 2.0, 0.0]
  for start, stop in ((0, 3), (3, 9), (9, 11)):
    values = range(start, stop)
    replay.insert('t', numbers(*values), np.array(priorities[start:stop]))
    model.insert(values, priorities[start:stop])
  assert drawn_from(replay, 10)[0] == model.sample(10)


HANDED_OVER = {
  'fifo': [2, 3, 4],
  'lifo': [4, 3, 2],
  'min_heap': [3, 2, 4],
  'max_heap': [4, 2, 3],
}


@pytest.mark.parametrize('sampler', ORDERS)
def test_the_orders_are_what_they_are_called(engine, sampler):
  replay = engine([Table('t', NUMBER, 3, sampler, max_times_sampled=1)])
  replay.insert('t', numbers(0, 1, 2, 3, 4), np.array([9.0, 0.0, 2.0, 1.0, 5.0]))
  assert [value for value, _ in drawn_from(replay, 3)[0]] == HANDED_OVER[sampler]


STAY = {
  'fifo': [4, 5, 6],
  'lifo': [0, 1, 2],  # Each newcomer is the newest, and leaves at once.
  'min_heap': [0, 2, 4],
  'max_heap': [3, 5, 6],  # Of equal ones the first: 1 made room for 6.
}


@pytest.mark.parametrize('remover', ORDERS)
def test_the_newcomer_may_be_the_one_that_leaves(engine, remover):
  table = Table('t', NUMBER, 3, 'fifo', max_times_sampled=1, remover=remover)
  replay = engine([table])
  priorities = np.array([2.0, 1.0, 3.0, 0.5, 4.0, 1.0, 1.0])
  replay.insert('t', numbers(*range(7)), priorities)
  now = replay.statistics()['t']
  assert (now.size, now.inserted) == (3, 7)
  assert [value for value, _ in drawn_from(replay, 3)[0]] == STAY[remover]


@pytest.mark.parametrize('sampler', ['min_heap', 'max_heap'])
def test_a_new_priority_puts_an_item_behind_its_equals(engine, sampler):
  table = Table('t', NUMBER, 9, sampler, max_times_sampled=2)
  replay = engine([table])
  replay.insert('t', numbers(0, 1, 2), np.ones(3))
  [(value, _)], keys = drawn_from(replay, 1)
  assert value == 0
  replay.update_priorities('t', np.array(keys, np.uint64), np.ones(1))
  drawn, _ = drawn_from(replay, 5)
  assert [value for value, _ in drawn] == [1, 1, 2, 2, 0]


@pytest.mark.parametrize('remover', ['uniform', 'prioritized'])
@pytest.mark.parametrize('sampler', SELECTORS)
def test_who_leaves_by_chance_leaves_by_the_law(engine, sampler, remover):
  """Of 4 items and one newcomer in turn, those of the newcomers that are left."""
  table = Table('t', NUMBER, 4, sampler, 1.0, max_times_sampled=1, remover=remover)
  replay, rounds = engine([table]), 400
  weights = np.array([1.0, 1.0, 2.0, 2.0, 4.0])
  gone = Counter()
  for _ in range(rounds):
    replay.insert('t', numbers(*range(5)), weights)
    left = replay.sample('t', 4).batch.data['x'].ravel().tolist()
    assert len(set(left)) == 4
    gone.update(set(range(5)) - set(left))
  law = weights / weights.sum() if remover == 'prioritized' else np.full(5, 0.2)
  counts = [gone[value] for value in range(5)]
  assert stats.chisquare(counts, law * rounds).pvalue > 1e-9


@pytest.mark.parametrize('remover', ['uniform', 'prioritized'])
def test_a_long_block_crowds_out_one_by_one(engine, remover):
  """After many newcomers those of a full table are any of them, mostly late ones."""
  table = Table('t', NUMBER, 3, 'fifo', 0.0, max_times_sampled=1, remover=remover)
  replay, rounds, count = engine([table]), 400, 8
  seen = Counter()
  for _ in range(rounds):
    replay.insert('t', numbers(*range(count)), np.arange(1.0, count + 1))
    seen.update(replay.sample('t', 3).batch.data['x'].ravel().tolist())
  # Each of n - 3 removals spares an item with 3/4; the last newcomer saw only one.
  law = np.array([0.75 ** min(count - 3, count - x) for x in range(count)])
  expected = law * rounds
  counts = np.array([seen[x] for x in range(count)])
  deviation = (counts - expected) / np.sqrt(expected * (1 - law))
  assert np.abs(deviation).max() < 6


@pytest.mark.parametrize(
  'pair', [*itertools.product(SELECTORS, SELECTORS)], ids='-'.join
)
def test_all_pairs_hold_what_they_should(engine, pair):
  sampler, remover = pair
  table = Table('t', NUMBER, 7, sampler, 0.5, max_times_sampled=3, remover=remover)
  replay = engine([table])
  replay.insert('t', numbers(*range(5)), np.arange(1.0, 6.0))
  keys = replay.sample('t', 4).keys
  replay.update_priorities('t', keys, np.full(keys.shape, 2.5))
  replay.insert('t', numbers(*range(5, 40)), 0.5 + np.arange(35.0) % 4)
  assert replay.statistics()['t'].size == 7
  lost = keys.copy()
  replay.update_priorities('t', lost, np.full(keys.shape, 1.5))
  left = replay.statistics()['t'].size
  drawn = []
  while left:
    sample = replay.sample('t', 1)
    assert 0 < sample.batch.probabilities.item() <= 1
    assert sample.batch.table_size.item() == left
    drawn.append(sample.batch.data['x'].item())
    left = replay.statistics()['t'].size
  assert len(set(drawn)) == 7
  assert max(Counter(drawn).values()) <= 3 and len(drawn) >= 7 * 3 - 4
