"""Launchpad programs of a user's, each in a process of its own; and such classes.

launchpad_programs.py NAME LAUNCH_TYPE PATH launches one of them.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np

from callsheet import Node, OnFailure, Program
from callsheet.launch.launchpad import array_proof, as_launchpad, service_node
from tests.launch.services import (
  Forever,
  Phoenix,
  Tally,
  Watcher,
  ordered,
  started,
  wait_until_started,
)


class Arrays:
  """Takes arrays and gives some."""

  def double(self, array: Any) -> Any:
    return array * 2

  def scaled(self, arrays: dict[str, Any], by: float = 1.0) -> dict[str, Any]:
    return {name: array * by for name, array in arrays.items()}

  def fail(self) -> None:
    raise KeyError('on purpose')

  def sleep(self, seconds: float) -> None:
    time.sleep(seconds)


class Asker:
  """Written for `lp.CourierNode`: futures, and `lp.stop` to end the program."""

  def __init__(self, arrays: Any, path: str) -> None:
    self._arrays, self._path = arrays, path

  def run(self) -> None:
    import launchpad as lp

    futures = [self._arrays.futures.double(np.full(1000, i)) for i in range(3)]
    sums = [int(future.result().sum()) for future in futures]
    sums.append(int(self._arrays.scaled({'a': np.arange(4)}, by=2)['a'].sum()))
    wait_until_started(self._path, 1)
    lp.stop()
    stopped = lp.wait_for_stop(20.0)
    with open(self._path, 'a') as file:
      file.write(f'{sums} {stopped}\n')


class Patient:
  """Written for `lp.CourierNode`: runs until it is told to stop."""

  def __init__(self, path: str) -> None:
    self._path = path

  def run(self) -> None:
    import launchpad as lp

    started(self._path)
    while not lp.wait_for_stop(0.05):
      pass
    assert lp.stop_event().is_set()
    with open(self._path, 'a') as file:
      file.write('told\n')


class Deaf:
  """Runs for ever and asks nobody."""

  def run(self) -> None:
    while True:
      time.sleep(0.01)


class Grasping:
  """Wants the courier server for itself."""

  def set_courier_server(self, server: object) -> None: ...


def ours_in_theirs(path: str) -> Any:
  import launchpad as lp

  program = lp.Program('theirs')
  arrays = program.add_node(service_node(Arrays), label='arrays')
  program.add_node(service_node(Closing, path), label='closing')
  program.add_node(lp.CourierNode(Asker, arrays, path), label='asker')
  return program


class Closing:
  """A service of ours that notes its end."""

  def __init__(self, path: str) -> None:
    self._path = path

  def run(self, stop: threading.Event) -> None:
    started(self._path)
    stop.wait()

  def close(self) -> None:
    with open(self._path, 'a') as file:
      file.write('closed\n')


def compiled(path: str, restarting: bool = False) -> Any:
  """A program of ours beside a node of theirs."""
  import launchpad as lp

  program = Program('compiled')
  tally = program.add('tally', Tally)
  restart = OnFailure(max_restarts=3, backoff=0.05) if restarting else None
  failures = 2 if restarting else 0
  program.add(Node('phoenix', restart=restart), Notes, tally, failures, path)
  program.add('held', Forever, 'held', path)
  program.add(Node('watcher', ends_program=True), Watcher, tally, 1)
  theirs = as_launchpad(program)
  theirs.add_node(lp.CourierNode(Patient, path), label='patient')
  return theirs


def phoenix(path: str) -> Any:
  """The same with a node that needs two restarts."""
  return compiled(path, restarting=True)


class Notes(Phoenix):
  """Fails in its first lives, then notes that it did not, once two others run."""

  def __init__(self, tally: Tally, failures: int, path: str) -> None:
    super().__init__(tally, failures)
    self._path = path

  def run(self) -> None:
    super().run()
    wait_until_started(self._path, 2)
    self._tally.note('alive')


def plain(path: str) -> Any:
  """A program of ours whose edges say in which order it stops."""
  return as_launchpad(ordered(path))


def couriers(path: str) -> Any:
  """Two nodes of Launchpad's; where they listen is written to the path."""
  import launchpad as lp

  program = lp.Program('couriers')
  nodes = [lp.CourierNode(Arrays), lp.CourierNode(array_proof(Arrays))]
  for node, label in zip(nodes, ('bare', 'proof'), strict=True):
    program.add_node(node, label=label)
  program.add_node(lp.PyNode(write, [n.courier_address for n in nodes], path), 'writer')
  return program


def write(addresses: list[Any], path: str) -> None:
  import launchpad as lp

  with open(path, 'w') as file:
    file.write(' '.join(address.resolve() for address in addresses) + '\n')
  lp.wait_for_stop()


def main() -> None:
  import launchpad as lp

  name, launch_type, path = sys.argv[1:]
  sys.argv[1:] = []
  # Nodes find this module's classes by its real name.
  from tests.launch import launchpad_programs

  program = getattr(launchpad_programs, name)(path)
  lp.launch(program, launch_type=launch_type, terminal='current_terminal').wait()


if __name__ == '__main__':
  main()
