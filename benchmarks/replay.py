"""The native replay against the Reverb engine, in one run: one line of JSON.

python benchmarks/replay.py [--rounds 5]

Both engines in this process; rounds interleaved between them; medians. Blocks of 256
items in, batches of 256 out. Small items are CartPole's transitions (44 bytes), frames
are transitions of 84x84x4 uint8 (56 kB). Where dm-reverb is not installed only the
absolute figures are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_env import specs

from callsheet.agents.base import Table
from callsheet.nodes.native_columns import item_bytes
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.replay import Replay

BLOCK = 256
HELD = {'small': 10_000, 'frames': 2_000}
# Calls in one measurement, by engine and kind of item.
TIMES = {
  ('native', 'small'): 100,
  ('native', 'frames'): 4,
  ('reverb', 'small'): 2,
  ('reverb', 'frames'): 1,
}
TARGETS = {'insert_small': 50, 'insert_frames': 5, 'sample_small': 50}


def table(kind: str, sampler: Any, size: int) -> Table:
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


def timed(call: Callable[[], object], times: int) -> float:
  """Mean seconds of a call."""
  begun = time.perf_counter()
  for _ in range(times):
    call()
  return (time.perf_counter() - begun) / times


def insert(replay: Replay, engine: str, kind: str, writers: int) -> float:
  """Seconds for each block, with so many threads that write."""
  declared, times = TABLES[kind, 'uniform'], TIMES[engine, kind]
  block = block_of(declared, BLOCK)
  threads = [
    threading.Thread(
      target=timed, args=(lambda: replay.insert(declared.name, block), times)
    )
    for _ in range(writers)
  ]

  def write() -> None:
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()

  return timed(write, 1) / (times * writers)


def sample(
  replay: Replay, engine: str, kind: str, batches: int, sampler: str = 'uniform'
) -> float:
  """Seconds for each batch; a prioritized one's priorities are set anew."""
  name = TABLES[kind, sampler].name
  priorities = np.random.default_rng(0).random((batches, BLOCK)) + 0.1

  def draw() -> None:
    drawn = replay.sample(name, BLOCK, batches)
    if sampler == 'prioritized':
      replay.update_priorities(name, drawn.keys, priorities)

  return timed(draw, max(1, TIMES[engine, kind] // batches)) / batches


def rows() -> dict[str, tuple[str, Callable[[Replay, str], float]]]:
  """By name: the kind of item, and the seconds for 256 of them."""
  found: dict[str, tuple[str, Callable[[Replay, str], float]]] = {}
  for kind in HELD:
    for writers in (1, 4):
      found[f'insert_{kind}_{writers}_writers'] = (
        kind,
        lambda r, e, k=kind, w=writers: insert(r, e, k, w),
      )
    for batches in (1, 8):
      found[f'sample_{kind}_uniform_{batches}x256'] = (
        kind,
        lambda r, e, k=kind, b=batches: sample(r, e, k, b),
      )
      found[f'sample_{kind}_prioritized_and_update_{batches}x256'] = (
        kind,
        lambda r, e, k=kind, b=batches: sample(r, e, k, b, 'prioritized'),
      )
  return found


def measure(rounds: int) -> dict[str, Any]:
  tables = list(TABLES.values())
  engines: dict[str, Any] = {'native': NativeReplay(tables)}
  if importlib.util.find_spec('reverb') is not None:
    from callsheet.nodes.reverb_replay import ReverbReplay

    engines['reverb'] = ReverbReplay(tables)
  try:
    for replay in engines.values():
      for (kind, _), declared in TABLES.items():
        for _ in range(HELD[kind] // 500):
          replay.insert(declared.name, block_of(declared, 500))
    measured = rows()
    for _, row in measured.values():
      for engine, replay in engines.items():
        row(replay, engine)
    spent: dict[str, dict[str, list[float]]] = {
      name: {engine: [] for engine in engines} for name in measured
    }
    copies = []
    for _ in range(rounds):
      copies.append(copy_bandwidth())
      for name, (_, row) in measured.items():
        for engine, replay in engines.items():
          spent[name][engine].append(row(replay, engine))
  finally:
    for replay in engines.values():
      replay.close()
  report: dict[str, Any] = {
    name: summary(name, measured[name][0], by_engine)
    for name, by_engine in spent.items()
  }
  report['memory_copy_MB_per_s'] = round(statistics.median(copies) / 1e6)
  report['prioritized_over_uniform'] = {
    f'{kind}_{batches}x256': ratio(
      spent[f'sample_{kind}_prioritized_and_update_{batches}x256']['native'],
      spent[f'sample_{kind}_uniform_{batches}x256']['native'],
    )
    for kind in HELD
    for batches in (1, 8)
  }
  report['million_over_ten_thousand'] = million(rounds)
  if 'reverb' not in engines:
    report['note'] = 'dm-reverb is not installed here: absolute figures only'
  return report


def copy_bandwidth() -> float:
  """Bytes a second of numpy's copy of as much as a batch of frames is."""
  source = np.ones(BLOCK * item_bytes(TABLES['frames', 'uniform']), np.uint8)
  target = np.empty_like(source)
  target[:] = 0
  return source.nbytes / timed(lambda: np.copyto(target, source), 5)


def million(rounds: int) -> dict[str, Any]:
  """What a batch of small items costs with 1,000,000 stored, against 10,000."""
  found: dict[str, Any] = {}
  for sampler in ('uniform', 'prioritized'):
    sizes = (10_000, 1_000_000)
    replays = {}
    for size in sizes:
      declared = table('small', sampler, size)
      replays[size] = NativeReplay([declared])
      replays[size].insert(declared.name, block_of(declared, size))
    for batches in (1, 8):
      spent: dict[int, list[float]] = {size: [] for size in sizes}
      for _ in range(rounds):
        for size, replay in replays.items():
          spent[size].append(sample(replay, 'native', 'small', batches, sampler))
      found[f'{sampler}_{batches}x256'] = ratio(spent[sizes[1]], spent[sizes[0]])
  return found


def ratio(ones: list[float], others: list[float]) -> float:
  return round(statistics.median(ones) / statistics.median(others), 2)


def summary(name: str, kind: str, by_engine: dict[str, list[float]]) -> dict[str, Any]:
  """Items and megabytes a second, and the ratio to Reverb's."""
  size = item_bytes(TABLES[kind, 'uniform'])
  row: dict[str, Any] = {}
  for engine, spent in by_engine.items():
    per_second = BLOCK / statistics.median(spent)
    row[engine] = {
      'items_per_s': round(per_second),
      'MB_per_s': round(per_second * size / 1e6, 1),
    }
  if 'reverb' in by_engine:
    row['ratio'] = ratio(by_engine['reverb'], by_engine['native'])
    for start, target in TARGETS.items():
      if name.startswith(start):
        row['target'], row['reached'] = target, row['ratio'] >= target
  return row


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=5)
  options = parser.parse_args()
  versions = {'python': platform.python_version(), 'numpy': np.__version__}
  figures = measure(options.rounds)
  print(json.dumps({'benchmark': 'replay', **versions, **figures}))


if __name__ == '__main__':
  main()
