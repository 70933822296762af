"""Ctrl-C while the nodes are being started."""

from __future__ import annotations

import signal

import pytest

from callsheet import Program
from callsheet.launch import start
from callsheet.launch.processes import ProcessCrew
from callsheet.launch.remote import RemoteCrew
from callsheet.launch.threads import ThreadCrew
from tests.launch.services import Forever


@pytest.mark.parametrize('before', [True, False])
def test_interrupt_while_a_unit_starts(backend, tmp_path, monkeypatch, before):
  local = {'threads': ThreadCrew, 'processes': ProcessCrew}
  crew = local.get(backend.name, RemoteCrew)
  begin, started = crew.start, []

  def interrupted(self, unit, report):
    if unit == 'second' and before:
      signal.raise_signal(signal.SIGINT)
    begin(self, unit, report)
    started.append(unit)
    if unit == 'second':
      signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(crew, 'start', interrupted)
  program = Program('half')
  for name in ('first', 'second', 'third'):
    program.add(name, Forever, name, str(tmp_path / 'closed'))
  # Launchpad starts all at once: what waits for that would use up its grace.
  grace = 1.0 if backend.name == 'launchpad' else 10.0
  with pytest.raises(KeyboardInterrupt):
    start(program, backend, grace=grace)
  # What they leave is for the fixture of every launch test to find.
  assert ('second' in started) != before
  assert len(started) < 3
