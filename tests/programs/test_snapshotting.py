"""What a program with snapshots declares."""

from __future__ import annotations

import os

import pytest

from callsheet.errors import UsageError
from callsheet.programs import OnFailure
from callsheet.programs.snapshotting import Snapshots
from tests.programs.declared import arguments, declare


def test_with_snapshots_nodes_that_hold_something_come_back(tmp_path):
  kept = str(tmp_path)
  plan = declare(run_directory=kept, snapshots=Snapshots(30.0, kept=2, keep_every=10))
  node = plan.node('snapshotter')
  assert set(node.callees) == {'learner', 'counter', 'recorder', 'replay'}
  assert node.grace == 60.0 and not node.ends_program
  assert node.kwargs == {'period': 30.0, 'kept': 2, 'keep_every': 10}
  for name in ('learner', 'replay', 'counter', 'recorder', 'snapshotter'):
    assert plan.node(name).restart == OnFailure(max_restarts=10)
  assert arguments(plan.node('counter')) == {'directory': kept}
  found = arguments(plan.node('learner'))['snapshot_directory']
  assert found == os.path.join(kept, 'snapshots')
  replay = arguments(plan.node('replay'))
  folder = os.path.join(kept, 'checkpoint', 'replay')
  assert (replay['checkpoint_directory'], replay['restore']) == (folder, True)
  # Its last one is taken while all that it asks is still there.
  assert 'snapshotter' in plan.stop_order()[0]


def test_each_shard_has_checkpoints_of_its_own(tmp_path):
  plan = declare(run_directory=str(tmp_path), snapshots=Snapshots(), num_replays=2)
  folders = {
    arguments(plan.node(f'replay/{index}'))['checkpoint_directory'] for index in (0, 1)
  }
  place = tmp_path / 'checkpoint' / 'replay'
  assert folders == {str(place / '0'), str(place / '1')}
  assert {'replay/0', 'replay/1'} <= set(plan.node('snapshotter').callees)


def test_another_life_draws_other_numbers(tmp_path):
  def seeds(life):
    plan = declare(life=life, num_actors=2)
    return [plan.node(n).kwargs['seed'] for n in ('actor/0', 'actor/1', 'evaluator')]

  assert seeds(0) == seeds(0)
  drawn = [seed for life in range(20) for seed in seeds(life)]
  assert len(set(drawn)) == len(drawn) and all(0 <= seed < 2**31 for seed in drawn)
  assert declare(life=3).node('learner').kwargs['seed'] == 0


def test_snapshots_need_a_folder():
  with pytest.raises(UsageError, match='snapshots need a folder: run_directory='):
    declare(snapshots=Snapshots())
