"""Checkpoints of the native replay: bit for bit, one moment, and damage is noticed."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

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
def test_it_holds_the_moment_it_began_while_writers_go_on(tmp_path, mapped):
  options = {'columns_directory': str(tmp_path / 'columns')} if mapped else {}
  place, take, values = tmp_path / 'c', Storage.take, iter(range(1000, 9000, 9))

  def write(replay):
    for guarded in replay._guarded.values():
      start = next(values)
      guarded.table.write(block(*range(start, start + 9)), None, slice(0, 5))

  def write_around(storage, number, lock):
    write(first)
    with contextlib.ExitStack() as behind:
      behind.callback(write, first)
      return take(storage, number, lock)

  with mock.patch.object(native_storage, 'CHUNK_BYTES', 100):
    first = full(place, **options)
    for _ in range(3):
      before = contents(first)
      with mock.patch.object(Storage, 'take', write_around):
        first.checkpoint()
      assert contents(restored(place)) == before != contents(first)


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
    replay.checkpoint()


def test_where_all_are_damaged_it_says_so(tmp_path):
  replay = full(tmp_path)
  for _ in range(2):
    flip(files(replay.checkpoint())[0])
  with pytest.raises(
    UsageError, match=r'each of the 2 checkpoints .* start without res'
  ):
    restored(tmp_path)


@contextlib.contextmanager
def file_size_limit(size):
  """The kernel refuses what goes beyond, as it does on a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(tmp_path):
  directory = tmp_path / 'checkpoints'
  replay = full(directory)
  first = replay.checkpoint()
  replay.insert('ring', block(5))
  before = contents(replay)
  with (
    file_size_limit(500),
    pytest.raises(UsageError, match=r'can not be written to .*File too large'),
  ):
    replay.checkpoint()
  assert [str(path) for path in directory.iterdir()] == [first]
  assert contents(replay) == before != contents(restored(directory))
  replay.checkpoint()
  assert contents(restored(directory)) == before


def chunks(checkpoint):
  return {path.name: path.stat().st_ino for path in Path(checkpoint).glob('*.items.*')}


def test_what_did_not_change_is_the_same_file(tmp_path, monkeypatch):
  monkeypatch.setattr(native_storage, 'CHUNK_BYTES', 240)  # Ten slots.
  replay = full(tmp_path)
  first = chunks(replay.checkpoint())
  assert len(first) == 10
  second = chunks(replay.checkpoint())
  assert second == first
  replay.insert('ring', block(1, 2, 3))  # Slots 20 to 22 of 50.
  third = chunks(replay.checkpoint())
  assert {name for name in first if first[name] != third[name]} == {'0.items.000002'}
  again = restored(tmp_path)
  assert contents(again) == contents(replay)
  again.insert('pool', block(4))
  fourth = chunks(again.checkpoint())
  assert sum(third[name] != fourth[name] for name in third) == 1
  assert contents(restored(tmp_path)) == contents(again)


def test_without_hard_links_it_is_copied(tmp_path, monkeypatch):
  def no_links(*paths):
    raise PermissionError(errno.EPERM, 'Operation not permitted')

  monkeypatch.setattr(os, 'link', no_links)
  replay = full(tmp_path)
  first, second = chunks(replay.checkpoint()), chunks(replay.checkpoint())
  assert first.keys() == second.keys()
  assert not set(first.values()) & set(second.values())
  assert contents(restored(tmp_path)) == contents(replay)


def test_damage_of_a_shared_file_is_that_of_both_and_ends_there(tmp_path, caplog):
  replay = full(tmp_path)
  replay.checkpoint()
  newest = Path(replay.checkpoint())
  path = newest / '1.items.000000'
  path.write_bytes(flipped(path))
  with pytest.raises(UsageError, match=r'each of the 2 checkpoints .* is damaged'):
    restored(tmp_path)
  assert 'is wrong, and so are the checkpoints that share it)' in caplog.messages[0]
  caplog.clear()
  replay.checkpoint()
  assert 'was written to); what it held is written anew' in caplog.messages[0]
  assert contents(restored(tmp_path)) == contents(replay)


def test_what_a_disk_loses_is_found_in_a_few_checkpoints(tmp_path, caplog):
  replay = full(tmp_path)
  path = Path(replay.checkpoint()) / '1.items.000000'
  status = path.stat()
  path.write_bytes(flipped(path))
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  for _ in range(8):
    replay.checkpoint()
  assert any('the checksum of 1.items.000000 is wrong' in m for m in caplog.messages)
  assert contents(restored(tmp_path)) == contents(replay)


def test_after_damage_was_seen_nothing_is_shared(tmp_path):
  replay = full(tmp_path)
  first = chunks(replay.checkpoint())
  flip(Path(replay.checkpoint()) / '0.items.000000')
  again = restored(tmp_path)
  assert not set(chunks(again.checkpoint()).values()) & set(first.values())


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_native_checkpoints import Storage, block, full
replay = full(sys.argv[1])
replay.checkpoint()
replay.insert('ring', block(1000))
replay.insert('pool', block(1000))
take, taken = Storage.take, []
def stall(*arguments):
  if taken:
    print('in the midst', flush=True)
    sys.stdin.read()
  taken.append(True)
  return take(*arguments)
Storage.take = stall
replay.checkpoint()
"""


def test_a_process_killed_in_the_midst_leaves_the_one_before(tmp_path):
  arguments = [sys.executable, '-c', KILLED, str(tmp_path), str(Path(__file__).parent)]
  with subprocess.Popen(
    arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout.readline() == 'in the midst\n'
    process.kill()
  assert sorted(path.name[:8] for path in tmp_path.iterdir()) == [
    '.writing',
    'replay-0',
  ]
  again = restored(tmp_path)
  assert again.statistics()['ring'].inserted == 70
  again.checkpoint()
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ['replay-000000', 'replay-000001']


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
