"""What a run leaves is read as it was, and replaces the older run of its seed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tests.learning.records import Record, keep, read
from tests.learning.rows import Row
from tests.learning.table import line

ROW = Row('dqn', 'CartPole-v1', 475, 'a threshold')


def record_of(
  folder: Path, seed: int, returns: list[float | None], backend: str = 'processes'
) -> Record:
  rows = [
    {
      'seconds': 1.5 * index,
      'actor_steps': 100 * index,
      'learner_steps': 0,
      'evaluator/actor_steps': 100 * index - 50,
      'evaluator/return': value,
    }
    for index, value in enumerate(returns)
  ]
  folder.mkdir()
  lines = [json.dumps(row) + '\n' for row in rows]
  (folder / 'metrics.jsonl').write_text(''.join(lines))
  return Record.of(folder, ROW, backend, seed)


def test_a_run_is_read_and_kept(tmp_path: Path) -> None:
  record = record_of(tmp_path / 'run', 0, [None, 20.0, 480.0])
  assert (record.steps, record.seconds, record.final) == (200, 3.0, 480.0)
  assert record.curve == ((50.0, 20.0), (150.0, 480.0))
  assert record.reached
  assert record.command == 'callsheet run dqn --env=CartPole-v1'
  keep(record, tmp_path / 'records')
  assert read(ROW.name, tmp_path / 'records') == [record]
  assert read('another', tmp_path / 'records') == []


def test_a_newer_run_replaces_that_of_its_seed_alone(tmp_path: Path) -> None:
  folder = tmp_path / 'records'
  old, other, new = (
    record_of(tmp_path / name, seed, [None, value])
    for name, seed, value in (('old', 0, 10.0), ('other', 1, 20.0), ('new', 0, 30.0))
  )
  for record in (other, old, new):
    keep(record, folder)
  assert read(ROW.name, folder) == [new, other]


def test_a_long_curve_keeps_its_shape_and_its_end(tmp_path: Path) -> None:
  returns = [None, *(float(value) for value in range(1000))]
  curve = record_of(tmp_path / 'run', 0, returns).curve
  assert len(curve) <= 60
  assert curve[-1][1] == 999
  gaps = {after[1] - before[1] for before, after in itertools.pairwise(curve)}
  assert len(gaps) == 1


def test_the_table_says_how_many_reached_it(tmp_path: Path) -> None:
  records = [
    record_of(tmp_path / str(seed), seed, [None, value])
    for seed, value in enumerate((480.0, 100.0, 500.0))
  ]
  assert line(ROW, records) == (
    '| `dqn` | CartPole-v1 | 475 (a threshold) | processes | 2 of 3 | '
    '100 (100 to 100) | 2 (2 to 2) | 360.0 (100.0 to 500.0) |'
  )
