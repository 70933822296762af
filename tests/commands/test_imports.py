"""A process imports what it needs: the difference is seconds and 100 MB a node."""

from __future__ import annotations

import subprocess
import sys

import pytest

from callsheet.errors import EdgeError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.reverb_replay import ReverbReplay
from callsheet.programs import Program

HEAVY = {
  'gymnasium',
  'haiku',
  'jax',
  'launchpad',
  'matplotlib',
  'orbax',
  'rich',
  'tensorflow',
}


@pytest.mark.parametrize(
  ('modules', 'wanted'),
  [
    ('callsheet', set()),
    ('callsheet.commands.main', set()),
    ('callsheet.launch.worker', set()),
    ('callsheet.launch.launchpad.entry', set()),
    ('callsheet.launch.launchpad.launcher', set()),
    ('callsheet.launch.worker, callsheet.nodes.counter', set()),
    ('callsheet.launch.worker, callsheet.nodes.recorder', set()),
    ('callsheet.launch.worker, callsheet.nodes.reverb_replay', set()),
    ('callsheet.launch.worker, callsheet.nodes.native_replay', set()),
    ('callsheet.launch.worker, callsheet.nodes.dataset', set()),
    ('callsheet.nodes.gymnasium_environments', {'gymnasium'}),
    ('callsheet.nodes.actor, callsheet.nodes.learner', {'jax'}),
  ],
)
def test_what_a_process_imports(modules, wanted):
  code = f'import {modules}, sys; print(*sorted(set(sys.modules) & {HEAVY!r}))'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert set(done.stdout.split()) == wanted


def test_names_for_type_checkers_alone_leave_the_edges_checked():
  program = Program('wrong')
  counter = program.add('counter', Counter)
  replay = program.add('replay', ReverbReplay, ())
  recorder = program.add('recorder', Recorder, None, counter, replay)
  with pytest.raises(EdgeError, match=r"'replay' of Recorder.*'counter', a Counter"):
    program.add('other', Recorder, None, counter, counter)
  with pytest.raises(EdgeError, match=r"'replay' of Learner.*'recorder', a Recorder"):
    program.add('learner', Learner, 'agent', recorder, counter, recorder, seed=0)
  with pytest.raises(EdgeError, match=r"'learner' of Actor.*'counter', a Counter"):
    program.add('actor', Actor, 'agent', print, replay, counter, counter, recorder)
