"""A node that needs longer to end than the others is given longer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from callsheet.launch import start
from callsheet.programs import Node, Program
from tests.launch.conftest import wait_for


class Slow:
  """Takes its time to close, and says when it has."""

  def __init__(self, path: str, seconds: float) -> None:
    self._path, self._seconds = Path(path), seconds

  def ready(self) -> bool:
    return True

  def close(self) -> None:
    until = time.monotonic() + self._seconds
    while time.monotonic() < until:
      time.sleep(0.01)
    self._path.write_text('closed')


@pytest.mark.parametrize('backend', ['threads', 'processes'])
def test_a_grace_of_its_own(tmp_path, backend):
  program = Program('patient')
  slow = program.add(
    Node('slow', grace=60.0), Slow, str(tmp_path / 'slow'), seconds=1.5
  )
  stuck = program.add('stuck', Slow, str(tmp_path / 'stuck'), seconds=3600.0)
  with start(program, backend, grace=0.3) as running:
    wait_for(lambda: running.client(slow).ready() and running.client(stuck).ready())
    began = time.monotonic()
  assert (tmp_path / 'slow').read_text() == 'closed'
  assert not (tmp_path / 'stuck').exists()
  assert time.monotonic() - began < 60
