"""Checkpoints of the native replay: bit for bit, one moment, and damage is noticed."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Limiter, Table
from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes import native_storage
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.native_storage import Storage

pytestmark = pytest.mark.timeout(60)

COLUMNS = {
  'x': specs.Array((), np.int64),
  'done': specs.Array((), np.bool_),
  'nothing': specs.Array((0,), np.float32),
  'y': specs.Array((3,), np.float32),
}
LIMITER = Limiter(2, 2.0, 4000.0)
TABLES = [
  Table('ring', COLUMNS, 50, 'prioritized', limiter=LIMITER),
  Table('pool', COLUMNS, 50, 'prioritized', 0.5, max_times_sampled=2),
  Table('empty', COLUMNS, 5),
]


def block(*values):
  x = np.array(values, np.int64)
  return {
    'x': x,
    'done': x % 3 == 0,
    'nothing': np.empty((len(x), 0), np.float32),
    'y': (x[:, None] * [1, -1, 0.1]).astype(np.float32),
  }


def full(directory, **options):
  replay = NativeReplay(TABLES, checkpoint_directory=str(directory), **options)
  generator = np.random.default_rng(0)
  for name in ('ring', 'pool'):
    replay.insert(name, block(*range(70)), generator.random(70) * 10)
    replay.sample(name, 30)
  return replay


def contents(replay):
  """All that a replay holds, by table, as bytes."""
  held = {}
  for name, guarded in replay._guarded.items():
    snapshot = guarded.table.begin_snapshot()
    guarded.table.end_snapshot(completed=False)
    slots = snapshot.arrays['keys'] % np.uint64(guarded.table.declared.max_size)
    rows = guarded.table.rows(slots.astype(np.int64))
    held[name] = (
      {key: values.tobytes() for key, values in {**snapshot.arrays, **rows}.items()},
      snapshot.counters,
    )
  return held


def restored(directory):
  return NativeReplay(TABLES, checkpoint_directory=str(directory), restore=True)


def test_all_of_it_comes_back_bit_for_bit_and_goes_on(tmp_path):
  first = full(tmp_path)
  first.checkpoint()
  second = restored(tmp_path)
  assert contents(second) == contents(first)
  for name in ('ring', 'pool'):
    assert second.statistics()[name] == first.statistics()[name]
  keys = first.sample('ring', 20).keys
  second.sample('ring', 20)
  for replay in (first, second):
    replay.update_priorities('ring', keys, np.full(keys.shape, 3.0))
    for name in ('ring', 'pool'):
      replay.insert(name, block(*range(100, 130)))
  ones, others = contents(first), contents(second)
  assert ones['ring'] == others['ring']
  # Which of its free places a pool takes first is its own affair.
  del ones['pool'][0]['keys'], others['pool'][0]['keys']
  assert ones['pool'] == others['pool']


@pytest.mark.parametrize('mapped', [False, True])
def test_it_holds_the_moment_it_began_while_writers_go_on(
  tmp_path, monkeypatch, mapped
):
  monkeypatch.setattr(native_storage, 'CHUNK_BYTES', 100)
  options = {'columns_directory': str(tmp_path / 'columns')} if mapped else {}
  first = full(tmp_path / 'checkpoints', **options)
  before, take = contents(first), Storage.take
  values = iter(range(1000, 9000, 9))

  def write():
    for guarded in first._guarded.values():
      start = next(values)
      guarded.table.write(block(*range(start, start + 9)), None, slice(0, 5))

  def write_around(storage, number, lock):
    write()
    taken = take(storage, number, lock)
    write()
    return taken

  monkeypatch.setattr(Storage, 'take', write_around)
  for _ in range(3):
    first.checkpoint()
    monkeypatch.undo()
    monkeypatch.setattr(native_storage, 'CHUNK_BYTES', 100)
    assert contents(restored(tmp_path / 'checkpoints')) == before
    assert (before := contents(first))
    monkeypatch.setattr(Storage, 'take', write_around)


def test_a_checkpoint_beside_writers_and_samplers_is_whole(tmp_path):
  replay = NativeReplay(TABLES, checkpoint_directory=str(tmp_path), keep_checkpoints=50)
  replay.insert('ring', block(0, 1, 2))
  over = threading.Event()

  def write():
    at = 3
    while not over.is_set() and at < 1500:
      replay.insert('ring', block(*range(at, at + 7)))
      replay.sample('ring', 14)
      at += 7

  writer = threading.Thread(target=write, daemon=True)
  writer.start()
  for _ in range(5):
    replay.checkpoint()
    again = restored(tmp_path)
    at = again.statistics()['ring']
    assert at.size == min(50, at.inserted)
    batch = again.sample('ring', 200).batch.data
    x = batch['x']
    assert x.min() >= at.inserted - at.size and x.max() < at.inserted
    for name, column in block(*x.ravel()).items():
      np.testing.assert_array_equal(batch[name][0], column)
  over.set()
  writer.join()


def files(checkpoint):
  return sorted(path for path in Path(checkpoint).iterdir() if path.stat().st_size)


def replace(path, data):
  """Of this name alone: what shares the file keeps it."""
  path.unlink()
  path.write_bytes(data)


def flipped(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  return data


def flip(path):
  replace(path, flipped(path))


def cut(path):
  replace(path, path.read_bytes()[:-1])


@pytest.mark.parametrize('damage', [flip, cut, os.unlink])
def test_whatever_is_damaged_the_one_before_is_used(tmp_path, caplog, damage):
  replay = full(tmp_path)
  whole = len(files(replay.checkpoint()))
  for index in range(whole):
    replay.insert('ring', block(index))
    newest = Path(replay.checkpoint())
    damage(files(newest)[index])
    caplog.clear()
    again = restored(tmp_path)
    assert again.statistics()['ring'].inserted == 70 + index
    (line,) = caplog.messages
    assert line.startswith(f'checkpoint {newest} is damaged (')
    assert line.endswith('); going back to the one before') and '\n' not in line
    # A whole one, for the next to be damaged to go back to.
    replay.checkpoint()


def test_where_all_are_damaged_it_says_so(tmp_path):
  replay = full(tmp_path)
  for _ in range(2):
    flip(files(replay.checkpoint())[0])
  with pytest.raises(
    UsageError, match=r'each of the 2 checkpoints .* start without res'
  ):
    restored(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
  replay = full(tmp_path)
  first = replay.checkpoint()
  before = contents(replay)

  def full_disk(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full_disk)
  with pytest.raises(UsageError, match=r'can not be written to .*No space left'):
    replay.checkpoint()
  monkeypatch.undo()
  assert [str(path) for path in tmp_path.iterdir()] == [first]
  assert contents(replay) == before == contents(restored(tmp_path))
  replay.checkpoint()


def test_close_gives_up_a_checkpoint(tmp_path, monkeypatch):
  replay = full(tmp_path)
  take = Storage.take

  def stop(*arguments):
    replay._stopping.set()
    return take(*arguments)

  monkeypatch.setattr(Storage, 'take', stop)
  with pytest.raises(CallCancelled, match='replay is stopping'):
    replay.checkpoint()
  replay.close()
  assert list(tmp_path.iterdir()) == []
