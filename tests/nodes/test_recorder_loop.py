"""When a recorder writes a row: each period, at the last, and whatever else fails."""

from __future__ import annotations

import threading

import pytest

from callsheet.errors import ConnectionLost, DeadlineExceeded, Unavailable
from callsheet.nodes.counter import Counter
from callsheet.nodes.metrics import MetricsFiles
from tests.nodes.recording import Tables, read, recorder, row_of
from tests.nodes.small import Loop, eventually

pytestmark = pytest.mark.timeout(60)


def test_a_row_each_period_and_the_last_one_on_close(tmp_path):
  counter = Counter()
  one = recorder(tmp_path, counter, period=0.002)
  with Loop(one) as loop:
    eventually(
      lambda: (tmp_path / 'metrics.csv').exists() and len(read(tmp_path)[1]) > 2
    )
  loop.ended.result(0)
  written = len(read(tmp_path)[0])
  counter.add(episodes=3)
  one.close()
  lines, _ = read(tmp_path)
  assert len(lines) == written + 1
  assert lines[-1]['episodes'] == 3
  assert one.latest() == lines[-1]


def test_the_last_row_is_there_though_answers_are_lost(tmp_path):
  class Losing(Tables):
    def statistics(self):
      self.error = ConnectionLost('gone') if self.asked < 2 else None
      return super().statistics()

  one = recorder(tmp_path, replay=Losing())
  one.record('evaluator', {'return': 500.0})
  one.close()
  (row,), _ = read(tmp_path)
  assert row['evaluator/return'] == 500.0


@pytest.mark.parametrize(
  'error',
  [Unavailable('gone'), DeadlineExceeded('silent'), ConnectionLost('again and again')],
)
def test_the_last_row_is_there_though_the_replay_is_not(tmp_path, error):
  replay, counter = Tables(), Counter()
  one = recorder(tmp_path, counter, replay, period=0.01)
  with Loop(one):
    eventually(one.latest)
    replay.error = error
    one.record('evaluator', {'return': 500.0})
  counter.add(episodes=3)
  one.close()
  rows, _ = read(tmp_path)
  assert rows[-1]['episodes'] == 3
  assert rows[-1]['evaluator/return'] == 500.0
  assert rows[-1]['replay_size'] == 10


def test_the_last_row_waits_for_room_on_the_disk(tmp_path, monkeypatch):
  append, attempts = MetricsFiles.append, []

  def full(files, row):
    attempts.append(row)
    if len(attempts) < 3:
      raise OSError(28, 'No space left on device')
    append(files, row)

  monkeypatch.setattr(MetricsFiles, 'append', full)
  one = recorder(tmp_path)
  one.close()
  assert read(tmp_path)[0] == attempts[-1:]


def test_a_stop_does_not_wait_for_the_period():
  with Loop(recorder(None, period=1000)) as loop:
    pass
  loop.ended.result(0)


@pytest.mark.parametrize('error', [ConnectionLost('gone'), Unavailable('not there')])
def test_a_node_that_is_being_restarted_costs_rows_and_nothing_else(error):
  replay = Tables()
  one = recorder(None, replay=replay, period=0.002)
  with Loop(one) as loop:
    eventually(one.latest)
    replay.error = error
    asked = replay.asked
    eventually(lambda: replay.asked > asked + 2)
    newest = one.latest()['seconds']
    replay.error = None
    eventually(lambda: one.latest()['seconds'] > newest)
  loop.ended.result(0)


def test_any_other_failure_surfaces():
  replay = Tables()
  replay.error = ValueError('broken')
  one = recorder(None, replay=replay, period=0.002)
  with Loop(one) as loop, pytest.raises(ValueError, match='broken'):
    loop.ended.result(20)


def test_many_nodes_record_while_rows_are_written():
  one = recorder(None, period=0.0005)

  def record(index):
    for step in range(300):
      one.record('actor', {f'figure{step % 40}': float(step)}, index)

  with Loop(one) as loop:
    threads = [threading.Thread(target=record, args=(i,)) for i in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  loop.ended.result(0)
  row = row_of(one)
  assert [row[f'actor/figure{i}'] for i in range(40)] == [
    float(max(range(i, 300, 40))) for i in range(40)
  ]
