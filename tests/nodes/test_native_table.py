"""What is the native engine's own: keys, order, memory, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes import native_memory
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.native_slots import Pool, Ring
from callsheet.nodes.native_table import NativeTable

pytestmark = pytest.mark.timeout(60)

NUMBER = {'x': specs.Array((), np.int64)}


def numbers(*values):
  return {'x': np.array(values, np.int64)}


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_pool_is_a_queue_from_whose_middle_items_may_go(capacity, data):
  pool, model, ever = Pool(capacity), [], set()
  for _ in range(data.draw(st.integers(0, 40))):
    if model and data.draw(st.booleans()):
      gone = data.draw(st.sets(st.sampled_from(model), max_size=capacity))
      slots = np.array([key % capacity for key in gone], np.int64)
      pool.remove(slots)
      model = [key for key in model if key not in gone]
    else:
      count = data.draw(st.integers(1, capacity))
      slots = pool.take(count)
      keys = pool.keys(slots).tolist()
      assert len(set(slots.tolist())) == count and not ever & set(keys)
      assert slots.tolist() == [key % capacity for key in keys]
      ever |= set(keys)
      model = (
        (model + keys)[-capacity:] if len(model) + count > capacity else model + keys
      )
    assert pool.live().tolist() == model and pool.size == len(model)
    if ever:
      asked = sorted(ever)
      alive = pool.alive(np.array(asked, np.uint64)).tolist()
      assert alive == [key in model for key in asked]
    if model:
      drawn = pool.keys(pool.draw(np.random.default_rng(0), 30))
      assert set(drawn.tolist()) <= set(model)


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_ring_is_a_queue(capacity, data):
  ring, model, serial = Ring(capacity), [], 0
  for count in data.draw(st.lists(st.integers(1, capacity), max_size=20)):
    slots = ring.take(count)
    keys = list(range(serial, serial + count))
    assert ring.keys(slots).tolist() == keys
    assert slots.tolist() == [key % capacity for key in keys]
    serial, model = serial + count, (model + keys)[-capacity:]
    assert ring.live().tolist() == model and ring.size == len(model)
    asked = np.arange(serial + 3, dtype=np.uint64)
    assert ring.alive(asked).tolist() == [int(key) in model for key in asked]
    drawn = ring.keys(ring.draw(np.random.default_rng(0), 30))
    assert set(drawn.tolist()) <= set(model)


@settings(deadline=None, max_examples=50)
@given(
  st.sampled_from(['uniform', 'prioritized']),
  st.integers(1, 3),
  st.integers(1, 12),
  st.integers(0, 2**32),
)
def test_draws_of_items_that_leave_are_those_one_by_one(sampler, times, size, seed):
  table = Table('t', NUMBER, size, sampler, 1.0, max_times_sampled=times)
  native = NativeTable(table)
  weights = np.random.default_rng(seed).integers(0, 4, size).astype(np.float64)
  native.write(numbers(*range(size)), weights, slice(0, size))
  draws = native.new_draws(size * times)
  native.draw(draws, slice(0, size * times))
  left, present = Counter(dict.fromkeys(range(size), times)), set(range(size))
  drawn = draws.columns['x'].tolist()
  for x, share, there in zip(drawn, draws.probabilities, draws.sizes, strict=True):
    total = sum(weights[i] for i in present)
    by_weight = sampler == 'prioritized' and total > 0
    expected = weights[x] / total if by_weight else 1 / len(present)
    assert share == pytest.approx(expected, rel=1e-5) and share > 0
    assert there == len(present)
    left[x] -= 1
    if not left[x]:
      present.remove(x)
  assert not present and native.standing.size == 0


def test_a_priority_too_large_to_be_summed_is_refused():
  table = Table('t', NUMBER, 10, sampler='prioritized', priority_exponent=2.0)
  replay = NativeReplay([table])
  with pytest.raises(ValueError, match=r'priority 1e\+200 to the power 2.0 is too lar'):
    replay.insert('t', numbers(1), np.array([1e200]))
  assert replay.statistics()['t'].inserted == 0
  replay.insert('t', numbers(1), np.array([1e100]))
  assert replay.sample('t', 1).batch.probabilities.item() == 1.0


def test_memory_is_that_of_its_arrays():
  frames = {'o': specs.Array((84, 84, 4), np.uint8), 'a': specs.Array((), np.int32)}
  assert native_memory.memory(Table('t', frames, 1000)) == 1000 * (84 * 84 * 4 + 4)
  prioritized = native_memory.memory(Table('t', NUMBER, 1000, sampler='prioritized'))
  assert prioritized == 8 * 1000 + 8 * 1000 + 24 * 125 + 8
  assert native_memory.memory(Table('t', NUMBER, 1000, max_times_sampled=1)) == 48_000
  mixed = {'a': specs.Array((), np.bool_), 'b': specs.Array((), np.int64), **frames}
  stored = NativeTable(
    Table('t', {**mixed, 'none': specs.Array((0,), 'f')}, 10)
  )._stored
  large = stored.views['o'].nbytes
  assert large + stored._small.nbytes == native_memory.memory(Table('t', mixed, 10))
  left = native_memory.available()
  assert left is None or left > 2**20


def test_tables_that_do_not_fit_together_are_refused_before_memory_is_taken(
  monkeypatch,
):
  monkeypatch.setattr(native_memory, 'available', lambda: 2**30)
  pixels = {'o': specs.Array((2**20,), np.uint8)}
  tables = [Table('a', pixels, 600), Table('b', pixels, 600)]
  with pytest.raises(UsageError) as caught:
    NativeReplay(tables)
  assert str(caught.value) == (
    "table 'b' would take 600.0 MiB (600 items of 1048576 bytes), and 424.0 MiB are "
    'available here; a max_size of 424 would fit'
  )
  NativeReplay([tables[0], Table('b', pixels, 424)]).close()


def test_it_imports_neither_tensorflow_nor_jax():
  program = """
import sys
import numpy as np
from dm_env import specs
from callsheet.agents.base import Table
from callsheet.nodes.native_replay import NativeReplay
replay = NativeReplay([Table('t', {'x': specs.Array((), np.float32)}, 10)])
replay.insert('t', {'x': np.ones(3, np.float32)})
replay.sample('t', 4)
replay.close()
print([m for m in ('tensorflow', 'reverb', 'jax') if m in sys.modules])
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, timeout=60
  )
  assert (done.stdout.strip(), done.stderr) == ('[]', '')
