"""The rows of a run: what is in them, and that their files stay whole."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callsheet.nodes.counter import Counter
from callsheet.nodes.metrics import COLUMNS, MetricsFiles, Rates
from tests.nodes.recording import Tables, read, recorder, row_of, statistics

pytestmark = pytest.mark.timeout(60)


# What is in a row.


def test_a_row_has_counts_statistics_and_figures():
  counter = Counter()
  counter.add(actor_steps=5, wins=2)
  one = recorder(None, counter, Tables(t=statistics(7, 1.5, 3.0, 'learner waits')))
  assert one.latest() == {}
  one.record('learner', {'loss': 0.25})
  row = row_of(one)
  assert row.pop('seconds') >= 0
  assert row == {
    'actor_steps': 5,
    'episodes': 0,
    'learner_steps': 0,
    'wins': 2,
    'samples_per_insert': 1.5,
    'replay_size': 7,
    'replay_credit': 3.0,
    'replay_state': 'learner waits',
    'replay_inserts_per_second': 20.0,
    'replay_samples_per_second': 40.0,
    'replay_waiting_writers': 0,
    'replay_writers_blocked_seconds': 0.0,
    'replay_waiting_samplers': 1,
    'replay_samplers_blocked_seconds': 0.5,
    'replay_sample_age': 3.5,
    'replay_bytes': 4000,
    'learner/loss': 0.25,
  }


def test_a_second_table_has_figures_of_its_own():
  tables = Tables(first=statistics(1), second=statistics(2), third=statistics(3))
  row = row_of(recorder(None, replay=tables))
  assert row['replay_size'] == 1
  assert row['replay_size/second'] == 2
  assert row['replay_state/third'] == 'open'
  assert 'replay_size/first' not in row
  assert {'samples_per_insert/second', 'replay_credit/third'} <= set(row)


def test_several_reporters_are_shown_by_their_mean():
  one = recorder(None)
  one.record('actor', {'return': 1.0}, index=0)
  one.record('actor', {'return': 2.0, 'age': 7}, index=1)
  one.record('actor', {'return': 5.0}, index=0)  # Replaces what it said before.
  one.record('evaluator', {'return': 100.0})
  row = row_of(one)
  assert (row['actor/return'], row['actor/age'], row['evaluator/return']) == (
    3.5,
    7,
    100,
  )


def test_what_is_not_finite_is_null(tmp_path):
  replay = Tables(t=statistics(0, math.nan, math.inf))
  one = recorder(tmp_path, replay=replay)
  one.record('learner', {'loss': math.nan, 'gradient': -math.inf})
  row = row_of(one)
  for name in (
    'samples_per_insert',
    'replay_credit',
    'learner/loss',
    'learner/gradient',
  ):
    assert row[name] is None
  assert read(tmp_path)[0] == [row]


def test_the_newest_row_is_a_copy():
  one = recorder(None)
  row_of(one)['seconds'] = -1
  assert one.latest()['seconds'] >= 0


# Rates.


def test_a_rate_looks_back_on_the_last_five_rows():
  rates = Rates(['a'], window=5)
  # 10 a second, but they arrive in lumps of 20 every other second.
  counts = [0, 20, 20, 40, 40, 60, 60, 80, 80, 100]
  seen = [rates.observe(s, {'a': n}) for s, n in enumerate(counts)]
  assert seen[0] == {}
  shown = [row['a_per_second'] for row in seen[1:]]
  assert shown == [20, 10, 40 / 3, 10, 12, 8, 12, 8, 12]


def test_a_rate_does_not_remember_what_is_longer_ago():
  rates = Rates(['a'], window=2)
  for seconds, count in enumerate([0, 1000, 1001, 1002]):
    rate = rates.observe(float(seconds), {'a': count})
  assert rate == {'a_per_second': 1.0}


def test_a_count_that_begins_again_counts_from_zero():
  rates = Rates(['a', 'b'], window=5)
  rates.observe(0.0, {'a': 100, 'b': 5})
  assert rates.observe(1.0, {'a': 110, 'b': 6}) == {
    'a_per_second': 10,
    'b_per_second': 1,
  }
  after = rates.observe(2.0, {'a': 4})  # The counter was restarted; b not added to yet.
  assert after == {'a_per_second': 7, 'b_per_second': 0.5}


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1000)), min_size=1))
def test_rates_are_never_negative_and_never_above_what_was_counted(steps):
  rates, seconds = Rates(['a'], window=3), 0.0
  for passed, count in steps:
    seconds += passed
    for rate in rates.observe(seconds, {'a': count}).values():
      assert 0 <= rate <= math.inf
      assert not math.isnan(rate)


def test_rows_have_the_rates_of_acting_and_learning():
  counter = Counter()
  counter.add(actor_steps=10_000, learner_steps=10_000)
  one = recorder(None, counter)
  first = row_of(one)
  assert not any(name.endswith('steps_per_second') for name in first)
  before = one.latest()['seconds']
  counter.add(actor_steps=600)
  row = row_of(one)
  span = row['seconds'] - before
  assert row['actor_steps_per_second'] == pytest.approx(600 / span)
  assert row['learner_steps_per_second'] == 0


# Files.


def test_files_have_every_row_and_the_table_its_columns(tmp_path):
  counter = Counter()
  one = recorder(tmp_path / 'deep' / 'down', counter)
  for steps in range(3):
    counter.add(actor_steps=1)
    one.record('learner', {f'metric{steps}': 1.0})
    one.close()
  lines, table = read(tmp_path / 'deep' / 'down')
  assert [row['actor_steps'] for row in lines] == [1, 2, 3]
  assert 'learner/metric2' in lines[2]
  assert [list(row) for row in table] == [list(COLUMNS)] * 3
  assert [row['actor_steps'] for row in table] == ['1', '2', '3']
  assert [row['replay_state'] for row in table] == ['open'] * 3


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  recorder(None).close()
  assert not list(tmp_path.iterdir())


def test_a_restarted_recorder_goes_on_with_files_and_seconds(tmp_path):
  first = recorder(tmp_path)
  first._started -= 1000  # It was started a while ago.
  first.close()
  counter = Counter()
  counter.add(actor_steps=10**6)  # The counter has lived on.
  second = recorder(tmp_path, counter)
  second.close()
  second.close()
  lines, table = read(tmp_path)
  seconds = [row['seconds'] for row in lines]
  assert 1000 <= seconds[0] < seconds[1] < seconds[2] < 1100
  # A million steps weren't made in the moment since the restart.
  assert [row.get('actor_steps_per_second', 0) for row in lines] == [0, 0, 0]
  assert [float(row['seconds']) for row in table] == seconds


@pytest.mark.parametrize('half', ['{"seconds": 7', '{', '12.5,3'])
def test_a_line_that_a_crash_cut_off_is_removed(tmp_path, half):
  recorder(tmp_path).close()
  for name in ('metrics.jsonl', 'metrics.csv'):
    with open(tmp_path / name, 'a') as file:
      file.write(half)
  recorder(tmp_path).close()
  lines, table = read(tmp_path)
  assert len(lines) == len(table) == 2
  assert [float(row['seconds']) for row in table] == [row['seconds'] for row in lines]


def test_empty_and_wholly_cut_files_begin_anew(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"sec')
  (tmp_path / 'metrics.csv').write_text('')
  assert MetricsFiles(str(tmp_path)).last_seconds() == 0
  recorder(tmp_path).close()
  lines, table = read(tmp_path)
  assert len(lines) == len(table) == 1
