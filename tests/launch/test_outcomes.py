"""A service that wants to know is told how its program ends, before its own end."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from callsheet import Node, Program
from callsheet.errors import NodeFailed
from callsheet.launch import start
from callsheet.outcomes import Outcome
from callsheet.programs.plan import concludes

pytestmark = pytest.mark.timeout(60)


class Witness:
  """Writes down what it was told, and that it was closed."""

  def __init__(self, path: str) -> None:
    self._path, self._told = path, 'nothing'

  def conclude(self, outcome: Outcome) -> None:
    self._told = outcome

  def hello(self) -> None:
    pass

  def close(self) -> None:
    Path(self._path).write_text(self._told)


class Worker:
  def __init__(self, witness: Witness, ending: str) -> None:
    self._witness, self._ending = witness, ending

  def run(self, stop: threading.Event) -> None:
    self._witness.hello()
    if self._ending == 'run raises':
      raise ValueError('broken')
    if self._ending == 'stopped':
      stop.wait()

  def close(self) -> None:
    if self._ending == 'close raises':
      raise ValueError('broken')


class Stuck(Witness):
  """Can't be told."""

  released = threading.Event()

  def conclude(self, outcome: Outcome) -> None:
    self.released.wait()


def program(path: Path, ending: str, witness: type[Witness] = Witness) -> Program:
  program = Program('p')
  handle = program.add('witness', witness, str(path))
  program.add(Node('worker', ends_program=True), Worker, handle, ending)
  return program


@pytest.mark.parametrize('backend', ['threads', 'processes'])
@pytest.mark.parametrize(
  ('ending', 'outcome'),
  [
    ('returns', 'finished'),
    ('run raises', 'failed'),
    ('stopped', 'interrupted'),
    # It was about to finish, and was not told before all who call it were closed.
    ('close raises', 'failed'),
  ],
)
def test_outcome(tmp_path, backend, ending, outcome):
  path = tmp_path / 'told'
  fails = 'raises' in ending
  with (
    pytest.raises(NodeFailed) if fails else contextlib.nullcontext(),
    start(program(path, ending), backend) as running,
  ):
    if ending != 'stopped':
      running.wait()
    else:
      running.client('witness').hello()
  assert path.read_text() == outcome


def test_who_can_not_be_told_does_not_hold_up_the_stop(tmp_path):
  path = tmp_path / 'told'
  with start(program(path, 'returns', Stuck), 'threads') as running:
    assert running.wait(30)
  Stuck.released.set()
  assert path.read_text() == 'nothing'


def test_who_wants_to_know(tmp_path):
  plan = program(tmp_path, 'returns').plan()
  assert [concludes(node) for node in plan.nodes] == [True, False]
