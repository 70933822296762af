"""The smallest program: python examples/counter_and_workers.py [threads|processes]"""

import os
import sys

from callsheet import Program
from callsheet.launch import launch


class Counter:
  def __init__(self) -> None:
    self._total = 0

  def increment(self, amount: int) -> int:
    self._total += amount
    return self._total


class Worker:
  def __init__(self, counter: Counter, amount: int) -> None:
    self._counter, self._amount = counter, amount

  def run(self) -> None:
    for _ in range(3):
      total = self._counter.increment(self._amount)
      print(f'+{self._amount} makes {total}, says process {os.getpid()}')


program = Program('counting')
counter = program.add('counter', Counter)
with program.group('worker'):
  for amount in (1, 10, 100):
    program.add('worker', Worker, counter, amount)

if __name__ == '__main__':
  launch(program, sys.argv[1] if len(sys.argv) > 1 else 'processes')
