"""Checkpoints of every replay engine: all of it comes back, and goes on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Limiter, Table
from callsheet.errors import UsageError

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32), 'y': specs.Array((2,), np.float32)}
TABLE = Table(
  't',
  COLUMNS,
  50,
  sampler='prioritized',
  priority_exponent=1.0,
  limiter=Limiter(2, 2.0, 400.0),
)


def block(*values):
  x = np.array(values, np.int32)
  return {'x': x, 'y': np.stack([x, -x], axis=1).astype(np.float32)}


def test_items_priorities_and_the_limiter_come_back(engine, tmp_path):
  first = engine([TABLE, Table('u', COLUMNS, 5)], checkpoint_directory=str(tmp_path))
  first.insert('t', block(*range(60)), np.arange(60.0))
  first.insert('u', block(7))
  sample = first.sample('t', 10, 3)
  path = Path(first.checkpoint())
  assert path.is_dir() and path.parent == tmp_path
  before = first.statistics()
  first.insert('t', block(1000))
  first.close()

  tables = [TABLE, Table('u', COLUMNS, 5)]
  second = engine(tables, checkpoint_directory=str(tmp_path), restore=True)
  after = second.statistics()
  assert after['t'] == before['t']
  assert (after['u'].size, after['u'].inserted, after['u'].sampled) == (1, 1, 0)
  assert math.isinf(after['u'].credit)
  batch = second.sample('t', 100).batch
  law = np.arange(60.0) / np.arange(10.0, 60.0).sum()
  np.testing.assert_allclose(batch.probabilities, law[batch.data['x']], rtol=1e-4)
  np.testing.assert_array_equal(batch.data['y'][..., 1], -batch.data['x'])
  zeros = np.zeros(sample.keys.shape)
  second.update_priorities('t', sample.keys, zeros)
  again = second.sample('t', 40).batch.data['x']
  assert not set(again.ravel()) & set(sample.batch.data['x'].ravel())
  second.insert('t', block(77))
  batch = second.sample('t', 150).batch
  new = batch.probabilities[batch.data['x'] == 77]
  np.testing.assert_allclose(new, batch.probabilities.max(), rtol=1e-4)
  assert second.statistics()['t'].sampled == before['t'].sampled + 290


def test_the_newest_stay_and_nothing_else(engine, tmp_path):
  replay = engine([TABLE], checkpoint_directory=str(tmp_path), keep_checkpoints=2)
  paths = []
  for value in range(4):
    replay.insert('t', block(value))
    paths.append(replay.checkpoint())
  replay.close()
  assert sorted(map(str, tmp_path.iterdir())) == paths[2:]
  later = engine([TABLE], checkpoint_directory=str(tmp_path), restore=True)
  assert later.statistics()['t'].size == 4


def test_without_restore_it_starts_empty_and_counts_on(engine, tmp_path):
  first = engine([TABLE], checkpoint_directory=str(tmp_path))
  first.insert('t', block(1, 2))
  old = first.checkpoint()
  first.close()
  second = engine([TABLE], checkpoint_directory=str(tmp_path))
  assert second.statistics()['t'].size == 0
  assert second.checkpoint() > old


def test_restore_of_nothing_starts_empty(engine, tmp_path):
  replay = engine([TABLE], checkpoint_directory=str(tmp_path / 'new'), restore=True)
  assert replay.statistics()['t'].inserted == 0
  replay.insert('t', block(1, 2, 3))
  assert replay.sample('t', 4).keys.shape == (1, 4)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'max_size': 60}, "'t' was written with max_size = 50, now it is 60"),
    ({'limiter': Limiter(2, 3.0, 400.0)}, "'t' was written with limiter"),
    ({'columns': {'x': COLUMNS['x']}}, "'t' was written with columns"),
    ({'name': 'other'}, r"holds the tables \['t'\], not \['other'\]"),
  ],
)
def test_a_checkpoint_of_other_tables_is_refused(engine, tmp_path, changes, message):
  first = engine([TABLE], checkpoint_directory=str(tmp_path))
  first.insert('t', block(1))
  first.checkpoint()
  first.close()
  changed = dataclasses.replace(TABLE, **changes)
  with pytest.raises(UsageError, match=message):
    engine([changed], checkpoint_directory=str(tmp_path), restore=True)


def test_a_checkpoint_needs_a_folder(engine):
  with pytest.raises(UsageError, match=r'checkpoint_directory='):
    engine([TABLE]).checkpoint()
  with pytest.raises(UsageError, match='needs the checkpoint_directory'):
    engine([TABLE], restore=True)
