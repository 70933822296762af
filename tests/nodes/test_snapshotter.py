"""A snapshot of plain nodes: what agrees in it, and what goes on from it."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from callsheet.agents.base import Limiter, Table
from callsheet.errors import ConnectionLost, UsageError
from callsheet.nodes import snapshots
from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.resuming import choose, lay_out
from callsheet.nodes.snapshotter import Snapshotter
from tests.nodes.small import SPEC, Batches, Loop, Records, agent, eventually

pytestmark = pytest.mark.timeout(120)

TABLE = Table('t', {'reward': SPEC.observation}, 1000, limiter=Limiter(1))


class Clock(Records):
  """In the recorder's place."""

  def latest(self):
    return {'seconds': 12.5}


def items(first, count):
  values = np.arange(first, first + count, dtype=np.float32)
  return {'reward': np.repeat(values[:, None], SPEC.observation.shape[0], axis=1)}


class Run:
  """The nodes of a run in one folder, as plain objects."""

  def __init__(self, folder: Path, replay=None, **options):
    self.folder, self.snapshots = folder, folder / 'snapshots'
    self.counter = Counter(str(folder))
    self.learner = Learner(
      agent(),
      Batches(),
      self.counter,
      Records(),
      snapshot_directory=str(self.snapshots),
      publish_period=0.01,
    )
    self.replay = replay or NativeReplay(
      [TABLE], checkpoint_directory=str(folder / 'replay'), restore=True
    )
    self.clock = Clock()
    self.snapshotter = Snapshotter(
      str(folder),
      self.learner,
      self.counter,
      self.clock,
      self.replay,
      **{'settle': 0.0, **options},
    )

  def close(self):
    self.snapshotter.close()
    self.replay.close()


@pytest.fixture
def begin(tmp_path):
  """Makes the nodes of a run in the same folder, each time anew."""
  begun: list[Run] = []

  def make(**options):
    for each in begun:
      each.close()
    begun.append(Run(tmp_path / 'run', **options))
    return begun[-1]

  yield make
  begun[-1].close()


def learnt(run: Run, steps: int) -> None:
  """Learns until there are so many steps, and some more."""
  with Loop(run.learner):
    eventually(lambda: run.counter.counts().get('learner_steps', 0) >= steps)


def test_what_agrees_in_a_snapshot_that_is_taken_meanwhile(begin):
  run = begin()
  places = []
  with Loop(run.learner):
    for number in range(4):
      eventually(lambda n=number: run.counter.counts().get('learner_steps', 0) > 50 * n)
      run.counter.add(actor_steps=10)
      run.replay.insert('t', items(10 * number, 10))
      places.append(Path(run.snapshotter.snapshot()))
  counts = run.counter.counts()
  for number, place in enumerate(places[1:], 1):
    manifest = snapshots.read(place)
    assert manifest['counts']['actor_steps'] == 10 * (number + 1)
    assert manifest['counts']['learner_steps'] == manifest['learner']['version']
    assert 0 < manifest['learner']['steps'] <= counts['learner_steps']
    assert manifest['seconds'] == 12.5 and manifest['versions']['jax']


def test_all_go_on_from_it(begin):
  run = begin()
  run.counter.add(actor_steps=70, episodes=3)
  run.replay.insert('t', items(0, 40))
  learnt(run, 30)
  state = jax.tree.map(np.array, run.learner._state)
  steps = run.counter.counts()['learner_steps']
  run.snapshotter.snapshot()
  run.replay.insert('t', items(40, 7))
  # Counted after the snapshot, and lost with what counted it but for its file.
  run.counter.add(actor_steps=5)

  run.snapshotter.close()
  lay_out(run.folder, choose(run.snapshots), [run.folder / 'replay'])
  again = begin()
  assert again.counter.counts() == {
    'actor_steps': 75,
    'episodes': 3,
    'learner_steps': steps,
  }
  assert again.replay.statistics()['t'].size == 40
  assert again.learner.parameters().version == steps
  restored = jax.tree.map(np.array, again.learner._state)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  assert again.learner._state['steps'] == steps
  learnt(again, steps + 10)
  assert again.counter.counts()['learner_steps'] == again.learner._learnt().version


def test_a_learner_alone_comes_back_and_its_versions_go_on(begin):
  """What it made after the snapshot is lost with it, but counted."""
  run = begin()
  learnt(run, 20)
  run.snapshotter.snapshot()
  kept = run.counter.counts()['learner_steps']
  learnt(run, kept + 30)
  seen, counted = run.learner.parameters().version, run.counter.counts()
  assert seen > kept

  second = Learner(
    agent(),
    Batches(),
    run.counter,
    Records(),
    snapshot_directory=str(run.snapshots),
    publish_period=0.01,
  )
  newer = second.parameters(known=seen - 1)
  assert newer is not None and newer.version >= seen
  assert int(second._state['steps']) == kept
  with Loop(second):
    eventually(lambda: second.parameters().version > seen + 20)
  counts = run.counter.counts()['learner_steps']
  assert counts - counted['learner_steps'] == int(second._state['steps']) - kept
  assert second.save(str(run.folder / 'state')) == snapshots.Learnt(
    int(second._state['steps']), counts
  )


def test_a_version_is_counted_before_anybody_sees_it(begin):
  run = begin()
  with Loop(run.learner):
    for _ in range(200):
      version = run.learner.parameters().version
      assert run.counter.counts().get('learner_steps', 0) >= version


def test_a_replay_with_what_was_not_yet_counted_is_waited_for(begin):
  run = begin(settle=0.5)
  run.replay.insert('t', items(0, 8))
  counted = threading.Timer(0.1, lambda: run.counter.add(actor_steps=8))
  checkpoint = run.replay.checkpoint

  def and_then():
    counted.start()
    return checkpoint()

  run.replay.checkpoint = and_then
  manifest = snapshots.read(Path(run.snapshotter.snapshot()))
  assert manifest['counts']['actor_steps'] == 8


def test_once_a_period_and_at_the_stop(begin):
  run = begin(period=0.1, kept=2, keep_every=4)
  with Loop(run.snapshotter):
    eventually(lambda: len(snapshots.numbered(run.snapshots)) >= 3)
    during = snapshots.numbered(run.snapshots)[-1]
  last = snapshots.numbered(run.snapshots)[-1]
  assert last > during
  assert run.clock.all('number') and min(run.clock.all('age')) >= 0
  kept = [int(place.name) for place in snapshots.numbered(run.snapshots)]
  assert set(kept[:-2]) == set(range(4, kept[-2], 4))


# What goes wrong.


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a disk of its own with room for little; `fill` leaves none."""
  place = tmp_path / 'run'
  place.mkdir()
  mounted = subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', place], capture_output=True
  )
  if mounted.returncode:
    pytest.skip('no disk can be mounted here; as if it were full is tested above')
  yield place
  subprocess.run(['umount', '-l', place], check=True)


def fill(place: Path) -> Path:
  ballast = place / 'ballast'
  with open(ballast, 'wb', buffering=0) as file:
    try:
      while True:
        file.write(bytes(4096))
    except OSError:
      return ballast


def no_room(monkeypatch):
  """As where the disk is full: new files can be made, but nothing written to them."""

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)


def unwritable(place: Path) -> None:
  """Even for root: where the folder would be is a file."""
  place.parent.mkdir(parents=True, exist_ok=True)
  place.write_text('in the way')


def test_a_disk_that_is_full_costs_the_snapshot_and_nothing_else(begin, monkeypatch):
  run = begin()
  run.snapshotter.snapshot()
  no_room(monkeypatch)
  with pytest.raises(UsageError, match=r'No space left on device'):
    run.snapshotter.snapshot()
  monkeypatch.undo()
  assert [place.name for place in snapshots.numbered(run.snapshots)] == ['000001']
  assert {path.name for path in run.snapshots.iterdir()} == {'.lock', '000001'}
  assert Path(run.snapshotter.snapshot()).name == '000002'
  assert choose(run.snapshots).snapshot.place.name == '000002'


def test_on_a_disk_that_is_really_full(small_disk, begin, caplog):
  run = begin()
  learnt(run, 5)
  run.snapshotter.snapshot()
  ballast = fill(run.folder)
  with caplog.at_level(logging.WARNING):
    run.snapshotter._try()
    # Whoever counts and learns isn't stopped by it.
    steps = run.counter.counts()['learner_steps']
    learnt(run, steps + 20)
  [line] = [each for each in caplog.messages if each.startswith('no snapshot')]
  assert line.startswith('no snapshot, the newest is still 000001: ')
  assert 'No space left' in line and '\n' not in line
  ballast.unlink()
  assert Path(run.snapshotter.snapshot()).name == '000002'
  chosen = choose(run.snapshots)
  assert chosen.snapshot.place.name == '000002' and not chosen.said


def test_a_folder_that_can_not_be_written(begin, tmp_path, caplog):
  unwritable(tmp_path / 'run' / 'snapshots')
  run = begin(period=0.05)
  with caplog.at_level(logging.WARNING), Loop(run.snapshotter) as loop:
    eventually(lambda: run.snapshotter._failed >= 2)
  assert loop.ended.exception(0) is None
  line = caplog.messages[0]
  assert line.startswith('no snapshot, there is none: no snapshot can be written to ')
  assert run.clock.all('failed')


def test_a_node_that_is_away_costs_the_snapshot_and_nothing_else(begin):
  class Away:
    def checkpoint(self):
      raise ConnectionLost("'replay' went away", 'replay')

    def close(self):
      pass

  run = begin(replay=Away())
  with pytest.raises(ConnectionLost):
    run.snapshotter.snapshot()
  assert {path.name for path in run.snapshots.iterdir()} == {'.lock'}
  with Loop(run.snapshotter) as loop:
    pass
  assert loop.ended.exception(0) is None and run.snapshotter._failed == 1


def test_two_runs_do_not_share_a_folder(begin, monkeypatch):
  monkeypatch.setattr('callsheet.nodes.snapshotter._PATIENCE', 0.1)
  run = begin()
  with pytest.raises(UsageError, match=r'a run still writes to .*snapshots'):
    Snapshotter(str(run.folder), run.learner, run.counter, run.clock)


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({'period': 0.0}, 'period is 0.0, expected seconds above 0'),
    ({'kept': 0}, 'kept is 0, expected at least 1'),
    ({'keep_every': 0}, 'keep_every is 0, expected at least 1, or None'),
  ],
)
def test_what_it_refuses(begin, options, expected):
  run = begin()
  with pytest.raises(UsageError, match=expected):
    Snapshotter('x', run.learner, run.counter, run.clock, **options)


def test_a_damaged_snapshot_is_passed_over_by_the_learner_too(begin, caplog):
  run = begin()
  learnt(run, 10)
  run.snapshotter.snapshot()
  steps = run.counter.counts()['learner_steps']
  learnt(run, steps + 10)
  place = Path(run.snapshotter.snapshot())
  arrays = [path for path in (place / 'learner').rglob('*') if path.is_file()]
  array = max(arrays, key=lambda path: path.stat().st_size)
  array.write_bytes(bytes(len(array.read_bytes())))
  again = begin()
  assert int(again.learner._state['steps']) == steps
  assert 'snapshot 000002 is damaged' in caplog.text
  assert 'going back to 000001' in caplog.text
  assert again.learner.parameters().version >= steps + 10
