"""A launcher that is a job: what it refuses before it launches anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from callsheet import Program
from callsheet.launch import Threads
from callsheet.launch.remote import controller
from callsheet.launch.remote.versions import versions
from tests.launch.services import Caller, Greeter, Tally


def submitted(folder: Path) -> Path:
  program = Program('short')
  greeter, tally = program.add('greeter', Greeter), program.add('tally', Tally)
  program.add('caller', Caller, greeter, tally)
  controller.submit(str(folder), program.plan(), Threads())
  return folder


def run(folder: Path) -> tuple[int, str]:
  module = 'callsheet.launch.remote.controller'
  done = subprocess.run(
    [sys.executable, '-m', module, str(folder)],
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
    cwd='/',
  )
  return done.returncode, done.stderr


def test_it_launches_what_was_submitted(tmp_path):
  assert run(submitted(tmp_path / 'files')) == (controller.FINISHED, '')


def test_files_are_for_nobody_else(tmp_path):
  folder = submitted(tmp_path / 'files')
  assert folder.stat().st_mode & 0o777 == 0o700
  assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_it_has_other_versions_than_the_submitting_machine(tmp_path):
  folder = submitted(tmp_path / 'files')
  (folder / 'versions.json').write_text(json.dumps({**versions(), 'Python': '2.7'}))
  code, said = run(folder)
  assert code == controller.FAILED
  assert 'where the submitting machine has 2.7: make them alike' in said


@pytest.mark.parametrize('lost', ['module', 'class'])
def test_it_lacks_what_nodes_are_made_of(tmp_path, lost):
  folder = submitted(tmp_path / 'files')
  name = b'tests.launch.services' if lost == 'module' else b'Greeter'
  program = folder / 'program.pkl'
  program.write_bytes(program.read_bytes().replace(name, b'x' * len(name)))
  code, said = run(folder)
  assert code == controller.FAILED
  (line,) = said.splitlines()
  assert line.startswith('callsheet: the program can not be read here: ')
