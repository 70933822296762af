"""What a checkpoint keeps of order, priorities and draws left, on every engine."""

from __future__ import annotations

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Table
from callsheet.errors import ReplayTimeout
from tests.nodes.one_by_one import OneByOne

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32)}
ORDERS = ('fifo', 'lifo', 'min_heap', 'max_heap')


def numbers(*values):
  return {'x': np.array(values, np.int32)}


def drawn(replay, count):
  batch = replay.sample('t', count).batch
  return batch.data['x'][0].tolist()


@pytest.mark.parametrize('remover', [*ORDERS, 'uniform', 'prioritized'])
@pytest.mark.parametrize('sampler', ORDERS)
def test_a_restored_table_goes_on_as_the_other_one(engine, tmp_path, sampler, remover):
  table = Table('t', COLUMNS, 6, sampler, 1.0, max_times_sampled=2, remover=remover)
  first = engine([table], checkpoint_directory=str(tmp_path))
  # All different: Reverb restores no more than the order in which items came.
  first.insert('t', numbers(*range(6)), np.array([2.5, 0.5, 4.0, 1.5, 3.0, 6.0]))
  sample = first.sample('t', 3)
  priorities = {value: 7.0 + value for value in sample.batch.data['x'].ravel().tolist()}
  given = np.array([[priorities[x] for x in sample.batch.data['x'][0].tolist()]])
  first.update_priorities('t', sample.keys, given)
  first.insert('t', numbers(6, 7), np.array([20.0, 0.25]))
  first.checkpoint()
  before = first.statistics()['t']
  first.close()
  second = engine([table], checkpoint_directory=str(tmp_path), restore=True)
  assert second.statistics()['t'] == before
  assert before.size in (5, 6) and before.inserted == 8 and before.sampled == 3
  if remover not in ORDERS:
    left = drawn(second, 2 * (before.size - 1))
    assert len(set(left)) >= before.size - 1
    return
  model = OneByOne(table)
  model.insert(range(6), [2.5, 0.5, 4.0, 1.5, 3.0, 6.0])
  model.sample(3)
  model.update(list(priorities), list(priorities.values()))
  model.insert([6, 7], [20.0, 0.25])
  second.insert('t', numbers(8, 9), np.array([5.0, 0.125]))
  model.insert([8, 9], [5.0, 0.125])
  expected = [value for value, _ in model.sample(model.left())]
  assert drawn(second, len(expected)) == expected
  assert second.statistics()['t'].size == 0


@pytest.mark.parametrize(
  ('make', 'expected'), [(Table.queue, [2, 3, 4, 5]), (Table.stack, [5, 4, 1, 0])]
)
def test_queue_and_stack_restore_order_and_counters(engine, tmp_path, make, expected):
  table = make('t', COLUMNS, 4)
  first = engine([table], checkpoint_directory=str(tmp_path))
  first.insert('t', numbers(0, 1, 2, 3))
  first.sample('t', 2)
  first.insert('t', numbers(4))
  first.checkpoint()
  first.close()
  second = engine([table], checkpoint_directory=str(tmp_path), restore=True)
  with pytest.raises(ReplayTimeout) as late:
    second.insert('t', numbers(5, 6), timeout=0)
  assert late.value.done == 1
  assert drawn(second, 4) == expected
  with pytest.raises(ReplayTimeout):
    second.sample('t', 1, timeout=0)
