"""Snapshots on disk: whole or passed over, kept n deep, written by one at a time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from callsheet.errors import UsageError
from callsheet.nodes import snapshots
from callsheet.nodes.resuming import choose, lay_out

ABOUT = {
  'counts': {'actor_steps': 100, 'learner_steps': 10},
  'seconds': 1.5,
  'learner': {'steps': 10, 'version': 10},
  'versions': {},
}


def write(directory: Path, text: str = 'weights', known=None) -> Path:
  aside = snapshots.make_aside(directory)
  for name in ('learner/d/array', 'replay/0/column', 'config.json'):
    (aside / name).parent.mkdir(parents=True, exist_ok=True)
    (aside / name).write_text(f'{text} of {name}')
  return snapshots.publish(aside, directory, ABOUT, {} if known is None else known)


def flip(path: Path, at: int = 3) -> None:
  """Another bit of the file, and nothing else: not even its time."""
  status, data = path.stat(), bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path) -> None:
  path.write_bytes(path.read_bytes()[:-1])


def test_the_newest_is_found_as_it_was_written(tmp_path):
  assert snapshots.newest(tmp_path) is None
  assert snapshots.newest(tmp_path / 'missing') is None
  write(tmp_path, 'old')
  place = write(tmp_path, 'new')
  found = snapshots.newest(tmp_path)
  assert found is not None and found.place == place == tmp_path / '000002'
  assert found.learnt == snapshots.Learnt(10, 10)
  assert found.manifest['counts'] == ABOUT['counts'] and not found.passed_over
  assert [path.name for path in snapshots.numbered(tmp_path)] == ['000001', '000002']


@pytest.mark.parametrize(
  ('damage', 'why'),
  [
    (lambda place: flip(place / 'learner/d/array'), 'checksum of learner/d/array'),
    (lambda place: cut(place / 'replay/0/column'), 'replay/0/column has 25 bytes, not'),
    (lambda place: (place / 'config.json').unlink(), 'No such file'),
    (lambda place: shutil.rmtree(place / 'learner'), 'No such file'),
    (lambda place: (place / 'manifest.json').unlink(), 'No such file'),
    (lambda place: cut(place / 'manifest.json'), ''),
    (lambda place: (place / 'manifest.json').write_text('[]'), ''),
    (lambda place: (place / 'manifest.json').write_bytes(b'\0' * 900), ''),
    (
      lambda place: (place / 'manifest.json').write_text(
        (place / 'manifest.json').read_text().replace('100', '101')
      ),
      'checksum of manifest.json',
    ),
  ],
)
def test_one_that_is_damaged_is_passed_over_and_that_is_said(tmp_path, damage, why):
  before = write(tmp_path)
  place = write(tmp_path)
  damage(place)
  chosen = choose(tmp_path)
  assert chosen.snapshot.place == before and chosen.has_replay
  [line] = chosen.said
  assert line.startswith('snapshot 000002 is damaged (') and '\n' not in line
  assert why in line and line.endswith('; going back to 000001')
  snapshots.read(before)


def test_every_bit_of_the_manifest_counts(tmp_path):
  place = write(tmp_path)
  sound = (place / 'manifest.json').read_bytes()
  for at in range(0, len(sound), 7):
    flip(place / 'manifest.json', at)
    with pytest.raises((ValueError, KeyError, TypeError)):
      snapshots.read(place)
    (place / 'manifest.json').write_bytes(sound)
  snapshots.read(place)


def test_half_written_ones_are_nothing_and_are_cleared_away(tmp_path):
  place = write(tmp_path)
  left = snapshots.make_aside(tmp_path)
  (left / 'learner').mkdir()
  assert choose(tmp_path).snapshot.place == place
  assert write(tmp_path).name == '000002'
  assert not left.exists()


def test_none_whole_leaves_the_newest_learner_and_no_replay(tmp_path):
  run, folder = tmp_path / 'run', tmp_path / 'run' / 'snapshots'
  places = [write(folder) for _ in range(3)]
  for place in places:
    flip(place / 'replay/0/column')
  flip(places[2] / 'learner/d/array')
  chosen = choose(folder)
  assert chosen.snapshot.place == places[1] and not chosen.has_replay
  [line] = chosen.said
  assert line.endswith('; going on from the learner of 000002, without replay')
  (run / 'replay').mkdir()
  (run / 'replay' / 'old').write_text('newer than the snapshot')
  lay_out(run, chosen, [run / 'replay'])
  assert not (run / 'replay').exists()
  found = snapshots.newest(folder, part='learner')
  assert found is not None and found.place == places[1]
  assert (folder / '000003.damaged').is_dir()
  assert write(folder).name == '000004'


def test_nothing_to_go_on_from(tmp_path):
  with pytest.raises(UsageError, match=r'there is no snapshot in .*: the run took'):
    choose(tmp_path)
  for _ in range(2):
    flip(write(tmp_path) / 'learner/d/array')
  with pytest.raises(UsageError, match=r'each of the 2 snapshots .* is damaged: 0'):
    choose(tmp_path)


def test_nodes_find_what_was_chosen_and_nothing_newer(tmp_path):
  folder = tmp_path / 'snapshots'
  sound = write(folder, 'sound')
  cut(write(folder) / 'learner/d/array')
  lay_out(tmp_path, choose(folder), [tmp_path / 'replay'])
  [column] = (tmp_path / 'replay' / 'replay-000000').iterdir()
  assert column.read_text() == 'sound of replay/0/column'
  assert snapshots.numbered(folder) == [sound]


def test_kept_n_deep_and_every_so_often_for_good(tmp_path):
  for _ in range(9):
    write(tmp_path)
    snapshots.prune(tmp_path, kept=2, keep_every=3)
  kept = [int(path.name) for path in snapshots.numbered(tmp_path)]
  assert kept == [3, 6, 8, 9]


def test_one_that_is_half_removed_is_none(tmp_path, monkeypatch):
  for _ in range(3):
    write(tmp_path)
  # The process is killed as soon as it begins to remove what is old.
  monkeypatch.setattr(shutil, 'rmtree', lambda *_, **__: None)
  snapshots.prune(tmp_path, kept=1, keep_every=None)
  monkeypatch.undo()
  assert [place.name for place in snapshots.numbered(tmp_path)] == ['000003']
  write(tmp_path)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'000003', '000004'}


def test_files_that_did_not_change_are_not_read_again(tmp_path, monkeypatch):
  known: dict[snapshots.Identity, str] = {}
  first = write(tmp_path, known=known)
  read, hashed = [], snapshots._sha256
  monkeypatch.setattr(snapshots, '_sha256', lambda p: read.append(p.name) or hashed(p))
  aside = snapshots.make_aside(tmp_path)
  snapshots.link_folder(first / 'replay', aside / 'replay')
  (aside / 'learner').mkdir()
  (aside / 'learner' / 'array').write_text('new')
  second = snapshots.publish(aside, tmp_path, ABOUT, known)
  assert read == ['array']
  monkeypatch.undo()
  files = snapshots.read(second)['files']
  assert sorted(files) == ['learner/array', 'replay/0/column']
  shared = (first / 'replay/0/column').stat()
  assert (second / 'replay/0/column').stat().st_ino == shared.st_ino


def test_one_writer_at_a_time(tmp_path):
  with snapshots.alone(tmp_path, patience=0):
    other = snapshots.alone(tmp_path, patience=0.2)
    with pytest.raises(UsageError, match='a run still writes to'), other:
      pass
    flip(write(tmp_path) / 'config.json')
  with snapshots.alone(tmp_path, patience=0):
    pass


def test_the_manifest_is_plain_json(tmp_path):
  written = json.loads((write(tmp_path) / 'manifest.json').read_text())
  assert written['manifest']['number'] == 1
  assert set(written['manifest']['files']) == {
    'config.json',
    'learner/d/array',
    'replay/0/column',
  }
