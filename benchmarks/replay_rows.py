"""What the replays of a benchmark hold, and how a measurement is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_env import specs

from callsheet.agents.base import Table

BLOCK = 256
HELD = {'small': 10_000, 'frames': 2_000}


def table(kind: str, sampler: Any, size: int) -> Table:
  """CartPole's transitions (44 bytes) or pairs of 84x84x4 uint8 (56 kB)."""
  observation = {
    'small': specs.Array((4,), np.float32),
    'frames': specs.Array((84, 84, 4), np.uint8),
  }[kind]
  columns = {
    'observation': observation,
    'action': specs.Array((), np.int32),
    'reward': specs.Array((), np.float32),
    'discount': specs.Array((), np.float32),
    'next_observation': observation,
  }
  return Table(f'{kind}-{sampler}', columns, size, sampler=sampler)


TABLES = {
  (kind, sampler): table(kind, sampler, held)
  for kind, held in HELD.items()
  for sampler in ('uniform', 'prioritized')
}


def block_of(declared: Table, count: int) -> dict[str, Any]:
  generator = np.random.default_rng(0)
  block = {}
  for name, spec in declared.columns.items():
    raw = generator.integers(0, 256, (count, *spec.shape), np.uint8)
    block[name] = raw.astype(spec.dtype)
  return block


def item_bytes(declared: Table) -> int:
  return sum(
    int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    for spec in declared.columns.values()
  )


def timed(call: Callable[[], object], times: int) -> float:
  """Mean seconds of a call."""
  begun = time.perf_counter()
  for _ in range(times):
    call()
  return (time.perf_counter() - begun) / times


def copy_bandwidth() -> float:
  """Bytes a second of numpy's copy of as much as a batch of frames is."""
  source = np.ones(BLOCK * item_bytes(TABLES['frames', 'uniform']), np.uint8)
  target = np.empty_like(source)
  target[:] = 0
  return source.nbytes / timed(lambda: np.copyto(target, source), 5)


def ratio(ones: list[float], others: list[float]) -> float:
  return round(statistics.median(ones) / statistics.median(others), 2)
