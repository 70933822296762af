"""Running statistics are those of all rows at once."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents import normalization
from callsheet.agents.normalization import empty, extend

# One length of a chunk, or each would compile anew: the mask makes it shorter.
CHUNK = 8
extended = jax.jit(extend)
chunks = st.lists(
  st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.booleans()),
    min_size=CHUNK,
    max_size=CHUNK,
  ),
  min_size=1,
  max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(chunks)
def test_statistics_of_chunks_are_those_of_all(chunks):
  statistics, seen = empty((2,)), []
  for chunk in chunks:
    values = np.array([value for value, _ in chunk], np.float32)
    mask = np.array([counts for _, counts in chunk])
    rows = np.stack([values, 3 - values], axis=1)
    statistics = extended(statistics, rows, mask)
    seen.append(rows[mask])
  rows = np.concatenate(seen).astype(np.float64)
  assert statistics.number == len(rows)
  if len(rows):
    np.testing.assert_allclose(statistics.mean, rows.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(
      statistics.variance, rows.var(axis=0), rtol=1e-3, atol=1e-2
    )


def test_nothing_seen_changes_nothing():
  rows = np.array([[3.0, -4.0]], np.float32)
  np.testing.assert_array_equal(normalization.normalize(empty((2,)), rows), rows)
  masked = extend(empty((2,)), rows, np.array([False]))
  np.testing.assert_array_equal(normalization.normalize(masked, rows), rows)


def test_leading_axes_are_rows():
  rows = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  statistics = extend(empty((3,)), rows)
  np.testing.assert_allclose(statistics.mean, rows.mean(axis=(0, 1)), rtol=1e-5)
  np.testing.assert_allclose(statistics.variance, rows.var(axis=(0, 1)), rtol=1e-5)


def test_what_never_varied_is_only_shifted():
  statistics = extend(empty(()), np.full(5, 7.0, np.float32))
  assert normalization.normalize(statistics, np.float32(7.5)) == 0.5


def test_it_normalizes_cuts_off_and_goes_back():
  statistics = extend(empty(()), np.array([1.0, 5.0], np.float32))
  values = np.array([3.0, 5.0, 203.0], np.float32)
  normal = normalization.normalize(statistics, values, 10.0)
  np.testing.assert_allclose(normal, [0, 1, 10])
  back = normalization.denormalize(statistics, normal)
  np.testing.assert_allclose(back, [3, 5, 23])


def test_old_rows_are_forgotten():
  old = extend(empty(()), np.zeros(1000, np.float32))
  new = np.full(10, 4.0, np.float32)
  assert extend(old, new, longest=10.0).mean == pytest.approx(2.0)
  assert extend(old, new).mean == pytest.approx(40 / 1010)


def test_popart_keeps_what_outputs_mean():
  generator = np.random.default_rng(0)
  linear = {'w': generator.normal(size=(4, 1)), 'b': generator.normal(size=1)}
  before = extend(empty(()), np.array([1.0, 4.0], np.float32))
  after = extend(before, np.array([-20.0, 70.0], np.float32))
  features = generator.normal(size=(5, 4))

  def meant(linear, statistics):
    outputs = features @ linear['w'] + linear['b']
    return normalization.denormalize(statistics, outputs)

  moved = normalization.popart(linear, before, after)
  assert not np.allclose(moved['w'], linear['w'])
  np.testing.assert_allclose(meant(moved, after), meant(linear, before), rtol=1e-4)
