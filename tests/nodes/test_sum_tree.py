"""The sum tree against a plain array: the same totals, the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.nodes.sum_tree import SumTree

pytestmark = pytest.mark.timeout(60)

WEIGHTS = st.one_of(
  st.just(0.0), st.floats(1e-100, 1e100), st.integers(0, 5).map(float)
)
SIZES = st.one_of(st.integers(1, 40), st.integers(16_000, 17_000))


@st.composite
def updates(draw):
  """A size, and blocks of (index, weight); an index may come twice in a block."""
  size = draw(SIZES)
  pairs = st.lists(st.tuples(st.integers(0, size - 1), WEIGHTS), max_size=20)
  return size, draw(st.lists(pairs, max_size=6))


def filled(size, blocks):
  tree, naive = SumTree(size), np.zeros(size)
  for block in blocks:
    indices = np.array([index for index, _ in block], np.int64)
    tree.set(indices, np.array([weight for _, weight in block]))
    for index, weight in block:
      naive[index] = weight
  return tree, naive


@settings(deadline=None)
@given(updates())
def test_weights_and_total_are_those_of_a_plain_array(case):
  size, blocks = case
  tree, naive = filled(size, blocks)
  np.testing.assert_array_equal(tree.get(np.arange(size)), naive)
  assert tree.total == pytest.approx(naive.sum(), rel=1e-12)


@settings(deadline=None)
@given(updates(), st.lists(st.floats(0, 1), min_size=1, max_size=20), st.data())
def test_find_is_where_the_running_sum_passes_the_target(case, shares, data):
  size, blocks = case
  tree, naive = filled(size, blocks)
  if tree.total == 0:
    return
  targets = np.resize(shares, data.draw(st.sampled_from([20, 3000]))) * tree.total
  found = tree.find(targets)
  assert found.dtype == np.int64 and ((found >= 0) & (found < size)).all()
  assert (naive[found] > 0).all()
  above = naive.cumsum()[found]
  slack = 1e-12 * tree.total
  assert (above >= targets - slack).all()
  assert (above - naive[found] <= targets + slack).all()


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**32))
def test_whole_numbers_are_found_exactly(size, seed):
  generator = np.random.default_rng(seed)
  weights = generator.integers(0, 3, size).astype(np.float64)
  weights[generator.integers(size)] = 1.0
  tree = SumTree(size)
  tree.set(np.arange(size), weights)
  targets = generator.random(size) * weights.sum()
  expected = weights.cumsum().searchsorted(targets, side='right')
  np.testing.assert_array_equal(tree.find(targets), expected)


def test_a_few_heavy_ones_among_many_light_ones_are_found():
  size = 200_000
  weights = np.full(size, 1e-6)
  weights[[5, 6, 77_777, 199_999]] = 1e6
  tree = SumTree(size)
  tree.set(np.arange(size), weights)
  ends = weights.cumsum()
  around = np.array([0.5, 0.999999, 1.0000001, 2.0, 2.5, 3.1])
  for scale in (1e6, 1e-2):
    targets = np.minimum(around * scale, 0.9999 * ends[-1])
    found = tree.find(np.resize(targets, 5000))[: len(targets)]
    np.testing.assert_array_equal(tree.find(targets), found)
    assert (ends[found] >= targets * (1 - 1e-9)).all()
    assert ((ends - weights)[found] <= targets * (1 + 1e-9)).all()


def test_the_total_does_not_drift_in_millions_of_updates():
  generator = np.random.default_rng(0)
  size = 20_000
  tree, naive = SumTree(size), np.zeros(size)
  for _ in range(500):
    indices = generator.integers(0, size, 5000)
    weights = 10.0 ** generator.uniform(-12, 12, 5000)
    tree.set(indices, weights)
    naive[indices] = weights
  assert tree.total == pytest.approx(naive.sum(), rel=1e-13)
  tree.set(np.arange(size), 0.0)
  assert tree.total == 0.0


@pytest.mark.parametrize('size', [1, 7, 8, 9, 2048 * 8, 2048 * 8 + 1, 200_000])
def test_its_memory_is_what_it_says(size):
  tree = SumTree(size)
  tree.set(np.array([size - 1]), np.ones(1))
  assert tree.find(np.array([0.5])).tolist() == [size - 1]
  tree.find(np.full(size, 0.5))
  arrays = [*tree._levels, tree._top, tree._running(), tree._guide]
  assert SumTree.memory(size) == sum(array.nbytes for array in arrays)
