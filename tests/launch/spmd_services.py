"""Nodes of several processes, which JAX makes one machine of."""

from __future__ import annotations

import os
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from callsheet import Node, OnFailure, Program
from callsheet.programs import Never, Resources
from tests.launch.services import Oops, Tally


def together(number: int) -> int:
  """The sum over all processes."""
  return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


class Member:
  """Adds up the ranks, again and again, until it is stopped; each life is noted.

  Args:
    tally: gets `(rank, processes, devices, local devices, sum of ranks, pid)`.
    steps: sums until it returns; None goes on.
    dies: the rank that is killed in its first life, before that sum.
    raises: the rank that raises instead.
  """

  def __init__(
    self,
    tally: Tally,
    steps: int | None = None,
    dies: tuple[int, int] | None = None,
    raises: tuple[int, int] | None = None,
  ) -> None:
    self._tally, self._steps, self._dies, self._raises = tally, steps, dies, raises
    self._lives = tally.increment()
    self._sums = 0

  def where(self) -> tuple[int, int]:
    return jax.process_index(), os.getpid()

  def sums(self) -> int:
    return self._sums

  def run(self, stop: threading.Event) -> None:
    rank = jax.process_index()
    self._tally.note(
      (
        rank,
        jax.process_count(),
        jax.device_count(),
        jax.local_device_count(),
        together(rank),
        os.getpid(),
      )
    )
    while self._sums != self._steps and not together(int(stop.is_set())):
      self._sums += 1
      first = self._lives <= jax.process_count()
      if (rank, self._sums) == self._dies and first:
        os.kill(os.getpid(), signal.SIGKILL)
      if (rank, self._sums) == self._raises and first:
        raise Oops('on purpose')


def members(
  size: int, restart: OnFailure | Never | None = None, **options: object
) -> Program:
  """A group beside a tally, which would go on for ever."""
  program = Program('members')
  tally = program.add('tally', Tally)
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
  node = Node(
    'member', resources=Resources(hosts=size, environment=flags), restart=restart
  )
  program.add(node, Member, tally, **options)  # type: ignore[arg-type]
  return program
