"""What can go wrong, to whom, and when: drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Each of the nodes of a run, and which flags it takes for there to be one.
NODES = {
  'actor/0': (),
  'counter': (),
  'evaluator': (),
  'inference': ('--inference=server',),
  'learner': (),
  'recorder': (),
  'relay/0': ('--num_relays=1',),
  'replay': (),
  'snapshotter': (),
}

LAUNCHER, MACHINE = 'launcher', 'machine'

# What is done, and to whom: a signal from outside, or something within its process.
KINDS = {
  'SIGKILL': (*NODES, LAUNCHER),
  'SIGSTOP': (*NODES, LAUNCHER),
  'cut in a large message': ('actor/0', 'learner', 'replay'),
  'answers lost': ('counter', 'replay'),
  'no memory': ('actor/0', 'learner', 'replay'),
  'clock jumps': ('counter', 'learner', 'recorder', 'snapshotter'),
  'slow disk': (MACHINE,),
  'full disk': (MACHINE,),
}


@dataclass(frozen=True)
class Fault:
  """One fault of one run.

  Attributes:
    number: which of the seed's faults it is.
    kind: a key of `KINDS`.
    victim: a node, or `LAUNCHER`, or `MACHINE` for all nodes.
    at: seconds after the learner's first steps.
    seed: of the run.
  """

  number: int
  kind: str
  victim: str
  at: float
  seed: int

  @property
  def flags(self) -> tuple[str, ...]:
    """With which the run has this victim."""
    return NODES.get(self.victim, ())


def draw(seed: int, count: int) -> list[Fault]:
  """So many faults; every kind has met every victim before one meets it again."""
  generator = random.Random(seed)
  pairs = [(kind, victim) for kind, victims in KINDS.items() for victim in victims]
  faults: list[Fault] = []
  while len(faults) < count:
    generator.shuffle(pairs)
    for kind, victim in pairs[: count - len(faults)]:
      at = round(generator.uniform(0.0, 4.0), 2)
      number = len(faults)
      faults.append(Fault(number, kind, victim, at, seed * 1000 + number))
  return faults
