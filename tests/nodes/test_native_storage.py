"""Arrays written down while they change: what is taken is what there was at `begin`."""

from __future__ import annotations

import threading
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.nodes import native_storage
from callsheet.nodes.native_storage import Storage

pytestmark = pytest.mark.timeout(60)

SLOTS = 23
LAYOUT = {'a': np.dtype(np.int64), 'b': np.dtype((np.int64, (2,)))}


def storage(chunk=5):
  with mock.patch.object(native_storage, 'CHUNK_BYTES', 24 * chunk):
    return Storage(SLOTS, LAYOUT)


def write(arrays, where, value):
  arrays.touch(where)
  arrays.arrays['a'][where] = value
  arrays.arrays['b'][where] = -value


SOME = st.one_of(
  st.lists(st.integers(0, SLOTS - 1), min_size=1, unique=True).map(np.array),
  st.tuples(st.integers(0, SLOTS - 1), st.integers(1, 9)).map(
    lambda run: slice(run[0], min(SLOTS, sum(run)))
  ),
)


@settings(max_examples=150, deadline=None)
@given(
  st.lists(
    st.tuples(st.lists(SOME, max_size=3), st.lists(SOME, max_size=9), st.booleans()),
    max_size=6,
  ),
  st.integers(1, 30),
)
def test_checkpoints_are_as_the_arrays_were_when_they_began(rounds, chunk):
  arrays, lock = storage(chunk), threading.Lock()
  values = iter(range(1, 1000))
  disk: dict[int, list[np.ndarray]] = {}
  high = 0
  for before, meanwhile, completed in rounds:
    for where in before:
      write(arrays, where, next(values))
      high = max(high, where.stop if isinstance(where, slice) else where.max() + 1)
    then = {name: array.copy() for name, array in arrays.arrays.items()}
    end, chunks, pending = high, arrays.begin(), list(meanwhile)
    assert sorted(chunks.changed + chunks.same) == list(range(-(-end // chunk)))
    written = dict(disk)
    for number in chunks.changed:
      for where in pending[:2]:
        write(arrays, where, next(values))
        high = max(high, where.stop if isinstance(where, slice) else where.max() + 1)
      del pending[:2]
      written[number] = arrays.take(number, lock)
    arrays.end(completed)
    if completed:
      disk = written
    for number in chunks.changed + chunks.same:
      part = slice(number * chunk, min((number + 1) * chunk, end))
      a, b = written[number]
      np.testing.assert_array_equal(a, then['a'][part])
      np.testing.assert_array_equal(b, then['b'][part])


def test_only_what_was_touched_is_written_the_next_overwritten_first():
  arrays = storage()
  assert arrays.begin() == ([], [])
  arrays.end(completed=True)
  write(arrays, slice(0, 12), 1)
  assert arrays.begin() == ([2, 0, 1], [])
  arrays.end(completed=True)
  write(arrays, np.array([3, 4]), 2)
  assert arrays.begin() == ([0], [1, 2])
  arrays.end(completed=True)
  assert arrays.begin() == ([], [0, 1, 2])


def test_what_a_checkpoint_did_not_complete_is_left_for_the_next():
  arrays = storage()
  write(arrays, slice(0, 12), 1)
  arrays.begin()
  write(arrays, slice(20, 21), 2)
  arrays.end(completed=False)
  assert sorted(arrays.begin().changed) == [0, 1, 2, 3, 4]


def test_rows_are_kept_once_and_let_go():
  arrays, lock = storage(), threading.Lock()
  write(arrays, slice(0, 10), 1)
  arrays.begin()
  for value in (2, 3):
    write(arrays, slice(0, 10), value)
  assert sum(len(slots) for k in arrays._kept.values() for slots, _ in k.rows) == 10
  assert arrays.take(1, lock)[0].tolist() == [1] * 5
  assert list(arrays._kept) == [0]
  arrays.end(completed=True)
  assert not arrays._kept
