"""Ties of priorities in a restored table: broken as in one that was never closed."""

from __future__ import annotations

import tempfile

import hypothesis
import numpy as np
import pytest
from dm_env import specs
from hypothesis import strategies

from callsheet.agents.base import Table
from callsheet.nodes.native_replay import NativeReplay
from tests.nodes.one_by_one import OneByOne

pytestmark = pytest.mark.timeout(120)

COLUMNS = {'x': specs.Array((), np.int32)}
DRAWS = 3
# Each writes files: examples are short enough as they are, and not shrunk.
PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
# Few different ones: most of the order is a matter of who was there first.
PRIORITIES = strategies.sampled_from([0.0, 1.0, 2.0])
STEPS = strategies.lists(
  strategies.one_of(
    strategies.tuples(
      strategies.just('insert'),
      strategies.one_of(
        strategies.lists(PRIORITIES, min_size=1, max_size=5),
        strategies.integers(1, 5),
      ),
    ),
    strategies.tuples(strategies.just('sample'), strategies.integers(1, 6)),
    strategies.tuples(
      strategies.just('update'),
      strategies.lists(
        strategies.tuples(strategies.integers(0, 99), PRIORITIES), min_size=1
      ),
    ),
  ),
  max_size=12,
)


class Pair:
  """The same calls to a replay and to the reference; what they give must be equal."""

  def __init__(self, table, directory):
    self._table, self._directory, self._next = table, directory, 0
    self.model, self._keys = OneByOne(table), {}
    self.replay = NativeReplay([table], checkpoint_directory=directory)

  def restore(self):
    """Checkpoint, end, and begin anew from there."""
    self.replay.checkpoint()
    self.replay.close()
    self.replay = NativeReplay(
      [self._table], checkpoint_directory=self._directory, restore=True
    )

  def insert(self, given):
    priorities = given if isinstance(given, list) else None
    count = given if priorities is None else len(given)
    values = list(range(self._next, self._next + count))
    self._next += count
    self.model.insert(values, priorities)
    column = {'x': np.array(values, np.int32)}
    self.replay.insert('t', column, priorities and np.array(priorities))

  def sample(self, count):
    count = min(count, self.model.left())
    if not count:
      return
    expected = [value for value, _ in self.model.sample(count)]
    sample = self.replay.sample('t', count, timeout=0)
    assert sample.batch.data['x'][0].tolist() == expected
    self._keys.update(zip(expected, sample.keys[0], strict=True))

  def update(self, changes):
    known = list(self._keys)
    if not known:
      return
    values = [known[index % len(known)] for index, _ in changes]
    priorities = [priority for _, priority in changes]
    self.model.update(values, priorities)
    keys = np.array([self._keys[value] for value in values], np.uint64)
    self.replay.update_priorities('t', keys, np.array(priorities))


@pytest.mark.parametrize('remover', ['fifo', 'lifo', 'min_heap', 'max_heap'])
@pytest.mark.parametrize('sampler', ['min_heap', 'max_heap'])
@hypothesis.settings(max_examples=25, deadline=None, phases=PHASES)
@hypothesis.given(before=STEPS, then=STEPS)
def test_ties_are_broken_as_without_a_restart(sampler, remover, before, then):
  table = Table('t', COLUMNS, 7, sampler, max_times_sampled=DRAWS, remover=remover)
  with tempfile.TemporaryDirectory() as directory:
    pair = Pair(table, directory)
    try:
      for name, argument in before:
        getattr(pair, name)(argument)
      pair.restore()
      for name, argument in then:
        getattr(pair, name)(argument)
      pair.restore()
      pair.sample(DRAWS * 7)
      assert pair.replay.statistics()['t'].size == 0
    finally:
      pair.replay.close()
