"""The checkpoint that a replay leaves when it is closed, and tables read off one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, Limiter, NStep, Sequences, Table
from callsheet.agents.step_tables import step_table
from callsheet.errors import UsageError
from callsheet.nodes import replay_folders
from callsheet.nodes.native_replay import NativeReplay

COLUMNS = {'x': specs.Array((), np.float32)}
SPEC = EnvironmentSpec(
  specs.Array((4, 4, 2), np.uint8), specs.DiscreteArray(3, np.int32)
)
EXTRAS = {'log_prob': specs.Array((), np.float32), 'h': specs.Array((5,), np.float32)}


def test_it_is_written_once_by_a_replay_that_is_told_to(tmp_path):
  replay = NativeReplay(
    [Table('t', COLUMNS, 5)],
    checkpoint_directory=str(tmp_path / 'there'),
    checkpoint_at_close=True,
  )
  replay.insert('t', {'x': np.arange(3, dtype=np.float32)})
  replay.close()
  replay.close()
  assert os.listdir(tmp_path / 'there') == ['replay-000000']
  again = NativeReplay(
    [Table('t', COLUMNS, 5)],
    checkpoint_directory=str(tmp_path / 'there'),
    restore=True,
  )
  assert set(again.sample('t', 50).batch.data['x'].ravel()) == {0, 1, 2}
  again.close()
  assert os.listdir(tmp_path / 'there') == ['replay-000000']


def test_a_disk_that_takes_nothing_is_told_of_and_the_tables_are_let_go(tmp_path):
  (tmp_path / 'file').write_text('')
  replay = NativeReplay(
    [Table('t', COLUMNS, 5)],
    checkpoint_directory=str(tmp_path / 'file' / 'there'),
    checkpoint_at_close=True,
  )
  with pytest.raises(UsageError, match='the replay can not be written to'):
    replay.close()
  replay.close()


def test_without_a_folder_there_can_be_none():
  with pytest.raises(UsageError, match='checkpoint_at_close=True needs a checkpoint_d'):
    NativeReplay([Table('t', COLUMNS, 5)], checkpoint_at_close=True)


@pytest.mark.parametrize(
  'table',
  [
    Table('t', COLUMNS, 5),
    Table.queue('t', COLUMNS, 7),
    Table('t', COLUMNS, 9, 'prioritized', 0.5, 3, Limiter(2, 1.5, 8.0), 'min_heap'),
    step_table(SPEC, NStep('t', 3, 0.9, num_stacked=2), 50, extras=EXTRAS),
    step_table(SPEC, Sequences('t', 4, 2), 50, extras=EXTRAS, max_steps=300),
  ],
  ids=lambda table: table.sampler,
)
def test_tables_come_back_as_they_were_described(table):
  described = replay_folders.describe({'t': table})
  [back] = replay_folders.declared(described).values()
  assert replay_folders.describe({'t': back}) == described
  assert list(back.columns) == list(table.columns)
  assert back.limiter == table.limiter
  if table.steps is not None:
    assert back.steps is not None
    assert back.steps.observation.shape == table.steps.observation.shape
    assert back.steps.action.shape == table.steps.action.shape
    assert list(back.steps.extras) == list(EXTRAS)
