"""Columns on disk: taken at once, gone when they are let go, apart from each other."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Table
from callsheet.errors import UsageError
from callsheet.nodes import native_mapping, native_memory
from callsheet.nodes.native_replay import NativeReplay

pytestmark = pytest.mark.timeout(60)

MIB = 2**20
COLUMNS = {'o': specs.Array((MIB,), np.uint8), 'a': specs.Array((), np.int32)}
TABLES = [Table('a', COLUMNS, 8, 'prioritized'), Table('b', COLUMNS, 4)]


def block(value):
  return {'o': np.full((1, MIB), value, np.uint8), 'a': np.array([value], np.int32)}


def mappings(folder):
  """Bytes of this process's files without a name in a folder, in all mappings."""
  lines = Path('/proc/self/maps').read_text().splitlines()
  spans = [
    line.split()[0].split('-')
    for line in lines
    if line.endswith('(deleted)') and str(folder) in line
  ]
  return sum(int(stop, 16) - int(start, 16) for start, stop in spans)


def test_columns_are_on_disk_and_let_go_at_close(tmp_path):
  before = mappings(tmp_path)
  replay = NativeReplay(TABLES, columns_directory=str(tmp_path / 'columns'))
  assert mappings(tmp_path) - before >= 12 * MIB
  replay.insert('a', block(3))
  assert replay.sample('a', 2).batch.data['o'].max() == 3
  assert list((tmp_path / 'columns').iterdir()) == []
  replay.close()
  gc.collect()
  assert mappings(tmp_path) == before


def test_some_tables_by_name(tmp_path):
  before = mappings(tmp_path)
  replay = NativeReplay(TABLES, columns_directory={'b': str(tmp_path)})
  assert 4 * MIB <= mappings(tmp_path) - before < 8 * MIB
  replay.close()
  with pytest.raises(UsageError, match=r"names 'c'; the tables are \['a', 'b'\]"):
    NativeReplay(TABLES, columns_directory={'c': str(tmp_path)})


def test_two_replays_in_one_directory_are_apart(tmp_path):
  first, second = (
    NativeReplay(TABLES, columns_directory=str(tmp_path)) for _ in range(2)
  )
  first.insert('b', block(1))
  second.insert('b', block(2))
  assert first.sample('b', 1).batch.data['o'].max() == 1
  assert second.sample('b', 1).batch.data['a'].max() == 2
  first.close()
  second.close()


def test_a_killed_process_leaves_nothing(tmp_path):
  program = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_native_mapping import NativeReplay, TABLES, block
replay = NativeReplay(TABLES, columns_directory=sys.argv[1])
replay.insert('a', block(1))
os.kill(os.getpid(), signal.SIGKILL)
"""
  folder = str(Path(__file__).parent)
  done = subprocess.run([sys.executable, '-c', program, str(tmp_path), folder])
  assert done.returncode == -9
  assert os.listdir(tmp_path) == []


def test_a_full_disk_is_refused_before_and_while_it_is_taken(tmp_path, monkeypatch):
  place = str(tmp_path / 'not' / 'yet')
  monkeypatch.setattr(native_memory, 'free_bytes', lambda directory: (10 * MIB, 1))
  with pytest.raises(UsageError) as caught:
    NativeReplay.check(TABLES, columns_directory=place)
  assert str(caught.value) == (
    "table 'b' would take 4.0 MiB (4 items of 1048580 bytes), and 2.0 MiB are free in "
    f'{place}; a max_size of 1 would fit'
  )
  monkeypatch.undo()
  huge = [Table('t', {'o': specs.Array((2**30,), np.uint8)}, 2**20)]
  monkeypatch.setattr(native_memory, 'free_bytes', lambda directory: (2**62, 1))
  with pytest.raises(UsageError, match=r'of columns can not be kept in .*; name anoth'):
    NativeReplay(huge, columns_directory=place)
  assert list(Path(place).iterdir()) == []


def test_what_they_take_is_said(tmp_path):
  assert NativeReplay.check(TABLES) == '12.0 MiB of memory'
  place = tmp_path / 'columns'
  said = NativeReplay.check(TABLES, columns_directory=str(place), restore=True)
  assert said == f'0.0 MiB of memory, 12.0 MiB in {place}'
  assert not place.exists()
  free, disk = native_mapping.free_bytes(place)
  assert free > 0 and disk == tmp_path.stat().st_dev


def test_a_directory_that_is_none(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(
    UsageError, match=r'no files can be made in .*file/x; name another'
  ):
    NativeReplay.check(TABLES, columns_directory=str(tmp_path / 'file' / 'x'))


def test_a_disk_that_ends_while_a_file_is_made(tmp_path, monkeypatch):
  def ends(descriptor, offset, size):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'posix_fallocate', ends)
  with pytest.raises(UsageError, match=r'of columns can not .* \(No space left on dev'):
    NativeReplay(TABLES, columns_directory=str(tmp_path))
