"""What every replay engine refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
from dm_env import specs

from callsheet import calls
from callsheet.agents.base import Limiter, Table
from callsheet.errors import UsageError
from callsheet.nodes.replay_checks import check_tables

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((2,), np.float32), 'a': specs.Array((), np.int32)}


def block(**changes):
  columns = {'x': np.zeros((3, 2), np.float32), 'a': np.zeros(3, np.int32)}
  columns.update(changes)
  return {name: column for name, column in columns.items() if column is not None}


WRONG_BLOCKS = {
  'missing': (block(a=None), r"'t': expected the columns \['a', 'x'\], came \['x'\]"),
  'unknown': (block(y=np.zeros(3)), r"came \['a', 'x', 'y'\]"),
  'dtype': (block(x=np.zeros((3, 2))), r"'x' expected float32 \[N, 2\], came float64"),
  'shape': (block(x=np.zeros((3, 5), 'f')), r"'x' expected .*came float32 \[3, 5\]"),
  'one item': (block(a=np.int32(1)), r"'a' expected int32 \[N\], came int32 \[\]"),
  'ragged': (
    block(a=np.zeros(4, 'i')),
    r"one N for all columns, came \{'x': 3, 'a': 4",
  ),
  'no mapping': (np.zeros(3), 'expected the columns .* came ndarray'),
}


@pytest.fixture
def replay(engine):
  return engine([Table('t', COLUMNS, 100, sampler='prioritized')])


@pytest.mark.parametrize('wrong', WRONG_BLOCKS)
def test_a_block_that_does_not_fit_is_refused_whole(replay, wrong):
  columns, message = WRONG_BLOCKS[wrong]
  with pytest.raises(ValueError, match=message) as caught:
    replay.insert('t', columns)
  assert "insert('t', {'x': float32 [N, 2], 'a': int32 [N]})" in str(caught.value)
  assert replay.statistics()['t'].inserted == 0


@pytest.mark.parametrize(
  'priorities',
  [[1, np.nan, 1], [1, -0.5, 1], [1, np.inf, 1], [1.0, 2.0], [[1.0], [1.0], [1.0]]],
)
def test_bad_priorities_are_refused(replay, priorities):
  with pytest.raises(ValueError, match=r"'t': priorities"):
    replay.insert('t', block(), np.array(priorities))
  assert replay.statistics()['t'].inserted == 0
  replay.insert('t', block())
  keys = replay.sample('t', 3).keys[0]
  with pytest.raises(ValueError, match=r"'t': priorities"):
    replay.update_priorities('t', keys, np.array(priorities))


def test_keys_are_uint64(replay):
  with pytest.raises(ValueError, match=r'keys expected uint64 .* came int64 \[2\]'):
    replay.update_priorities('t', np.array([1, 2]), np.ones(2))


def test_an_unknown_table_names_the_nearest(engine):
  replay = engine([Table('replay', COLUMNS, 100), Table('queue', COLUMNS, 100)])
  with pytest.raises(ValueError, match=r"no table 'relpay'; did you mean 'replay'"):
    replay.sample('relpay', 1)
  with pytest.raises(ValueError, match=r"no table 'zzz'; it has 'replay', 'queue'"):
    replay.insert('zzz', block())
  with pytest.raises(ValueError, match="did you mean 'queue'"):
    replay.update_priorities('queu', np.zeros(1, np.uint64), np.ones(1))


@pytest.mark.parametrize('sizes', [(0, 1), (1, 0), (-1, 1)])
def test_sizes_below_one_are_refused(replay, sizes):
  with pytest.raises(ValueError, match='batch_size >= 1 and num_batches >= 1'):
    replay.sample('t', *sizes)


def test_waiting_methods_are_marked(replay):
  waits = {name for name in dir(replay) if calls.is_blocking(getattr(replay, name))}
  assert waits == {'append', 'insert', 'sample'}


WRONG_TABLES = {
  'none': ([], 'needs a table'),
  'twice': ([Table('t', COLUMNS, 1), Table('t', COLUMNS, 1)], "two tables.*'t'"),
  'columns': ([Table('t', {}, 1)], 'no column'),
  'objects': (
    [Table('t', {**COLUMNS, 'o': specs.Array((), object)}, 1)],
    'dtype object',
  ),
  'size': ([Table('t', COLUMNS, 0)], 'max_size .* came 0'),
  'sampler': (
    [Table('t', COLUMNS, 1, sampler='heap')],
    "one of 'uniform', .* came 'heap'",
  ),
  'remover': ([Table('t', COLUMNS, 1, remover=None)], 'remover has .* came None'),
  'exponent': ([Table('t', COLUMNS, 1, priority_exponent=-1)], 'priority_exponent'),
  'times': ([Table('t', COLUMNS, 1, max_times_sampled=-1)], 'max_times_sampled'),
}
WRONG_LIMITERS = {
  'min size': (Limiter(min_size=11), 'no sample could ever pass.*came 11'),
  'no min size': (Limiter(min_size=0), 'came 0'),
  'ratio': (Limiter(1, samples_per_insert=0.0), 'samples_per_insert .*came 0.0'),
  'small buffer': (
    Limiter(1, 8.0, error_buffer=7.0),
    'wait for each other.*8.0, came 7',
  ),
  'tiny ratio': (Limiter(1, 0.1, error_buffer=0.5), 'at least.*1.0, came 0.5'),
  'buffer alone': (Limiter(1, None, error_buffer=5.0), 'bounds nothing'),
  'nan buffer': (Limiter(1, 1.0, error_buffer=float('nan')), 'at least.*came nan'),
  'nan ratio': (Limiter(1, float('nan')), 'above 0 .*came nan'),
  'narrow bounds': (Limiter(1, 1.0, (0.0, 1.5)), r'at least 2 apart, came \(0.0, 1.5'),
  'turned bounds': (Limiter(1, 1.0, (3.0, 0.0)), r'\(lowest, highest\), came \(3.0'),
  'high bounds': (Limiter(2, 1.0, (3.0, 9.0)), r'at most .* = 2, came \(3.0, 9.0\)'),
  'no queue': (Limiter.queue(0), 'at least 1 apart'),
}


@pytest.mark.parametrize('wrong', WRONG_TABLES)
def test_a_table_that_can_not_work_is_refused(wrong):
  tables, message = WRONG_TABLES[wrong]
  with pytest.raises(UsageError, match=message):
    check_tables(tables)


@pytest.mark.parametrize('wrong', WRONG_LIMITERS)
def test_a_limiter_that_can_not_be_satisfied_is_refused(engine, wrong):
  limiter, message = WRONG_LIMITERS[wrong]
  with pytest.raises(UsageError, match=rf"table 't': .*{message}"):
    engine([Table('t', COLUMNS, 10, limiter=limiter)])


def test_more_draws_than_an_item_lives_are_refused():
  limiter = Limiter(1, samples_per_insert=2.0)
  with pytest.raises(UsageError, match='can never be met'):
    check_tables([Table('t', COLUMNS, 10, max_times_sampled=1, limiter=limiter)])
