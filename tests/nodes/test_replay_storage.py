"""What every replay engine does with items: stores, draws, removes, reweighs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from dm_env import specs
from scipy import stats

from callsheet.agents.base import Table

pytestmark = pytest.mark.timeout(60)

NUMBER = {'x': specs.Array((), np.int32)}
MIXED = {
  'pixels': specs.Array((3, 5), np.uint8),
  'vector': specs.Array((4,), np.float32),
  'action': specs.Array((), np.int32),
  'done': specs.Array((), np.bool_),
  'time': specs.Array((), np.int64),
  'nothing': specs.Array((0,), np.float32),
}


def numbers(*values):
  return {'x': np.array(values, np.int32)}


def mixed(count, seed=0):
  generator = np.random.default_rng(seed)
  block = {}
  for name, spec in MIXED.items():
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    raw = generator.integers(0, 256, (count, size), np.uint8)
    if spec.dtype == np.bool_:
      raw %= 2
    block[name] = np.frombuffer(raw.tobytes(), spec.dtype).reshape(count, *spec.shape)
  block['time'] = np.arange(count, dtype=np.int64)
  return block


@pytest.mark.parametrize('count', [1, 7, 90])
def test_items_come_back_bit_for_bit(engine, count):
  replay = engine([Table('t', MIXED, 1000)])
  block = mixed(count)
  assert replay.insert('t', block) == count
  drawn = replay.sample('t', 20, 3).batch.data
  assert set(drawn) == set(MIXED)
  which = drawn['time']
  for name, spec in MIXED.items():
    assert drawn[name].dtype == spec.dtype
    assert drawn[name].shape == (3, 20, *spec.shape)
    assert drawn[name].tobytes() == block[name][which].tobytes()


def test_a_sample_has_its_shapes_and_dtypes(engine):
  replay = engine([Table('t', NUMBER, 10)])
  replay.insert('t', numbers(1, 2, 3))
  sample = replay.sample('t', 5, 2)
  assert (sample.keys.dtype, sample.keys.shape) == (np.uint64, (2, 5))
  batch = sample.batch
  assert (batch.probabilities.dtype, batch.probabilities.shape) == (np.float32, (2, 5))
  assert (batch.table_size.dtype, batch.table_size.shape) == (np.int32, (2,))
  assert batch.table_size.tolist() == [3, 3]
  np.testing.assert_allclose(batch.probabilities, 1 / 3, rtol=1e-6)
  assert replay.sample('t', 600, 2).keys.shape == (2, 600)


def test_strided_and_foreign_blocks_are_taken(engine):
  replay = engine([Table('t', {'x': specs.Array((2,), np.float32)}, 100)])
  wide = np.arange(24, dtype=np.float32).reshape(6, 4)
  replay.insert('t', {'x': wide[::2, ::2]}, priorities=np.ones(3, np.float32))
  drawn = replay.sample('t', 64).batch.data['x'][0]
  assert {tuple(row) for row in drawn.tolist()} == {(0, 2), (8, 10), (16, 18)}
  assert replay.insert('t', {'x': np.empty((0, 2), np.float32)}) == 0


def test_the_oldest_items_leave_first(engine):
  replay = engine([Table('t', NUMBER, 10)])
  for start in range(0, 35, 5):
    replay.insert('t', numbers(*range(start, start + 5)))
  drawn = replay.sample('t', 400).batch.data['x']
  assert set(drawn.ravel().tolist()) == set(range(25, 35))
  assert replay.statistics()['t'].size == 10


def test_one_block_may_be_larger_than_the_table(engine):
  replay = engine([Table('t', NUMBER, 10)])
  assert replay.insert('t', numbers(*range(95))) == 95
  drawn = replay.sample('t', 400).batch.data['x']
  assert set(drawn.ravel().tolist()) == set(range(85, 95))


def test_uniform_draws_are_uniform(engine):
  replay = engine([Table('t', NUMBER, 10)])
  replay.insert('t', numbers(*range(10)), np.arange(10.0))
  drawn = replay.sample('t', 1000, 10).batch.data['x']
  counts = np.bincount(drawn.ravel(), minlength=10)
  assert stats.chisquare(counts).pvalue > 1e-9


@pytest.mark.parametrize('exponent', [0.0, 0.6, 1.0])
def test_prioritized_draws_follow_the_law(engine, exponent):
  table = Table('t', NUMBER, 10, sampler='prioritized', priority_exponent=exponent)
  replay = engine([table])
  priorities = np.array([0.1, 0.5, 1.0, 2.0, 7.0])
  replay.insert('t', numbers(*range(5)), priorities)
  batch = replay.sample('t', 1000, 10).batch
  law = priorities**exponent / (priorities**exponent).sum()
  counts = np.bincount(batch.data['x'].ravel(), minlength=5)
  assert stats.chisquare(counts, law * counts.sum()).pvalue > 1e-9
  np.testing.assert_allclose(batch.probabilities, law[batch.data['x']], rtol=1e-4)


def test_an_item_of_priority_zero_is_not_drawn(engine):
  replay = engine([Table('t', NUMBER, 10, sampler='prioritized')])
  replay.insert('t', numbers(0, 1, 2), np.array([1.0, 0.0, 1.0]))
  assert set(replay.sample('t', 500).batch.data['x'].ravel().tolist()) == {0, 2}


def test_where_every_priority_is_zero_all_are_drawn(engine):
  replay = engine([Table('t', NUMBER, 10, sampler='prioritized')])
  replay.insert('t', numbers(1, 2, 3), np.zeros(3))
  batch = replay.sample('t', 200).batch
  assert set(batch.data['x'].ravel().tolist()) == {1, 2, 3}
  np.testing.assert_allclose(batch.probabilities, 1 / 3, rtol=1e-6)


def test_new_priorities_count_and_lost_keys_are_passed_over(engine):
  table = Table('t', NUMBER, 4, sampler='prioritized', priority_exponent=1.0)
  replay = engine([table])
  replay.insert('t', numbers(0, 1, 2, 3))
  old = replay.sample('t', 64, 2)
  values = old.batch.data['x']
  replay.update_priorities('t', old.keys, np.where(values == 2, 3.0, 0.5))
  batch = replay.sample('t', 200).batch
  law = np.array([0.5, 0.5, 3.0, 0.5]) / 4.5
  np.testing.assert_allclose(batch.probabilities, law[batch.data['x']], rtol=1e-4)
  replay.insert('t', numbers(4, 5, 6, 7), np.ones(4))
  replay.update_priorities('t', old.keys, np.full(old.keys.shape, 9.0))
  np.testing.assert_allclose(replay.sample('t', 50).batch.probabilities, 0.25)


def test_a_new_item_gets_the_highest_priority_so_far(engine):
  table = Table('t', NUMBER, 100, sampler='prioritized', priority_exponent=1.0)
  replay = engine([table])

  def shares():
    batch = replay.sample('t', 500).batch
    pairs = zip(batch.data['x'].ravel(), batch.probabilities.ravel(), strict=True)
    return {int(x): float(p) for x, p in pairs}

  replay.insert('t', numbers(0), np.array([0.25]))
  replay.insert('t', numbers(1))
  assert shares() == pytest.approx({0: 0.2, 1: 0.8}, rel=1e-4)
  key = replay.sample('t', 1).keys
  replay.update_priorities('t', key, np.array([[4.0]]))
  replay.update_priorities('t', key, np.array([[0.5]]))
  replay.insert('t', numbers(2))
  now = shares()
  assert now[2] == pytest.approx(max(now.values()))
  assert now[2] > 0.7


def test_an_item_leaves_after_its_last_draw(engine):
  replay = engine([Table('t', NUMBER, 200, max_times_sampled=2)])
  replay.insert('t', numbers(*range(50)))
  drawn = replay.sample('t', 25, 4).batch.data['x']
  assert np.bincount(drawn.ravel()).tolist() == [2] * 50
  assert replay.statistics()['t'].size == 0


def test_concurrent_writers_and_samplers_lose_nothing(engine):
  replay = engine([Table('t', MIXED, 10_000), Table('n', NUMBER, 10_000)])
  drawn: list[int] = []
  failures: list[BaseException] = []

  def guarded(work):
    try:
      work()
    except BaseException as error:
      failures.append(error)

  def write(writer):
    for part in range(5):
      replay.insert(
        'n', numbers(*range(1000 * writer + 50 * part, 1000 * writer + 50 * part + 50))
      )
      replay.insert('t', mixed(9, seed=part))

  def draw():
    for _ in range(5):
      drawn.append(replay.sample('n', 30, 2).keys.size)
      replay.sample('t', 10)

  threads = [
    threading.Thread(target=guarded, args=(lambda w=w: write(w),), daemon=True)
    for w in range(4)
  ] + [threading.Thread(target=guarded, args=(draw,), daemon=True) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failures
  now = replay.statistics()
  assert (now['n'].inserted, now['n'].size, now['t'].inserted) == (1000, 1000, 180)
  assert now['n'].sampled == sum(drawn) == 900
  seen = set(replay.sample('n', 2000, 10).batch.data['x'].ravel().tolist())
  assert seen == {1000 * w + i for w in range(4) for i in range(250)}
