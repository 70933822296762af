"""Calls that don't wait for each other, deadlines, and a node that fails and returns.

python examples/futures.py [threads|processes]
"""

from __future__ import annotations

import random
import sys
import time

from callsheet import (
  DeadlineExceeded,
  Node,
  OnFailure,
  Program,
  call_async,
  with_deadline,
)
from callsheet.launch import launch


class Simulator:
  """Rolls dice, slowly."""

  def __init__(self, seed: int) -> None:
    self._random = random.Random(seed)

  def roll(self, dice: int) -> int:
    time.sleep(0.1 * dice)
    return sum(self._random.randint(1, 6) for _ in range(dice))


class Gambler:
  def __init__(self, simulators: list[Simulator]) -> None:
    self._simulators = simulators

  def run(self) -> None:
    begun = time.monotonic()
    futures = [call_async(simulator.roll, 5) for simulator in self._simulators]
    rolled = [future.result() for future in futures]
    print(f'rolled {rolled} in {time.monotonic() - begun:.1f} s')
    try:
      with_deadline(self._simulators[0].roll, 0.2)(20)
    except DeadlineExceeded as error:
      print(f'too slow: {error}')


class Unlucky:
  """Fails now and then; the program goes on without it until it is back."""

  def run(self) -> None:
    if random.random() < 0.5:  # The back-off doubles: ten in a row take minutes.
      raise RuntimeError('bad luck')
    print('lucky at last')


program = Program('gambling')
with program.group('simulator'):
  simulators = [program.add('simulator', Simulator, seed) for seed in range(4)]
program.add('gambler', Gambler, simulators)
unlucky = Node('unlucky', restart=OnFailure(max_restarts=50, backoff=0.1))
program.add(unlucky, Unlucky)
print(program.describe('text'))
launch(program, sys.argv[1] if len(sys.argv) > 1 else 'processes')
