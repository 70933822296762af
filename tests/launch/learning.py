"""A program that learns the mean of what a stub of a replay tells it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from callsheet import Node, Program, blocking
from callsheet.agents.base import Batch
from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from callsheet.nodes.replay import Sample
from callsheet.programs import Resources, Restart
from tests.nodes.small import Records, agent


class Rewards:
  """In the replay's place: rewards of 1, at most `limit` batches.

  Who asks for more waits as long as the program runs.
  """

  def __init__(self, limit: int | None) -> None:
    self._limit, self._drawn, self._waiting = limit, 0, 0
    self._lock, self._closed = threading.Lock(), threading.Event()

  @blocking
  def sample(self, table: str, batch_size: int, num_batches: int = 1) -> Sample:
    with self._lock:
      last = self._limit is not None and self._drawn + num_batches > self._limit
      self._waiting += last
      if not last:
        self._drawn += num_batches
    if last:
      self._closed.wait()
      raise RuntimeError('closed')
    shape = (num_batches, batch_size)
    return Sample(
      Batch(
        {'reward': np.ones(shape, np.float32)},
        np.ones(shape, np.float32),
        np.ones(num_batches, np.int32),
      ),
      np.zeros(shape, np.uint64),
    )

  def update_priorities(
    self, table: str, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    pass

  def waiting(self) -> int:
    return self._waiting

  def close(self) -> None:
    self._closed.set()


def stub_of_replay(limit: int | None) -> Any:
  """Has but what a learner calls, which the graph would refuse."""
  return Rewards(limit)


def stub_of_recorder() -> Any:
  """Likewise."""
  return Records()


def learning(
  restart: Restart | None = None, limit: int | None = None, devices: int = 1
) -> Program:
  """A learner of two processes."""
  program = Program('learning')
  counter = program.add('counter', Counter)
  replay = program.add('replay', stub_of_replay, limit)
  flags = {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'}
  node = Node(
    'learner', resources=Resources(hosts=2, environment=flags), restart=restart
  )
  program.add(
    node,
    Learner,
    agent(),
    replay,
    counter,
    program.add('recorder', stub_of_recorder),
    updates_per_dispatch=2,
    publish_period=0.05,
  )
  return program
