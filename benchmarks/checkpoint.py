"""What a checkpoint of the native replay costs, and who waits for it: one line of JSON.

python benchmarks/checkpoint.py [--rounds 3] [--megabytes 1024] [--mapped]

A table of 84x84 frames and one of a million small prioritized items. Each round: a full
checkpoint; one after a hundredth of the frames was written anew; a plain copy of the
full one's bytes (from memory, synced) to the same disk; and, in another replay, how
long calls of a writer and of a sampler take for a second without a checkpoint, and
while a full one is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from dm_env import specs

from callsheet.agents.base import Table
from callsheet.nodes.native_replay import NativeReplay

BLOCK = 32
SMALL = 1_000_000
FRAME = 84 * 84
PIECE = 4 * 2**20


def tables(megabytes: int) -> list[Table]:
  frame = specs.Array((84, 84), np.uint8)
  small = specs.Array((), np.float32)
  return [
    Table('frames', {'observation': frame}, megabytes * 10**6 // FRAME),
    Table('small', {'reward': small, 'discount': small}, SMALL, 'prioritized'),
  ]


def block_of(declared: Table, count: int) -> dict[str, Any]:
  generator = np.random.default_rng(0)
  return {
    name: generator.integers(0, 256, (count, *spec.shape), np.uint8).astype(spec.dtype)
    for name, spec in declared.columns.items()
  }


class Callers:
  """A writer and a sampler of both tables, each of which notes how long a call took."""

  def __init__(self, replay: NativeReplay, declared: list[Table]) -> None:
    self._over = threading.Event()
    self._spent: dict[str, list[float]] = {'writer': [], 'sampler': []}
    blocks = {table.name: block_of(table, BLOCK) for table in declared}
    calls: dict[str, Callable[[str], object]] = {
      'writer': lambda name: replay.insert(name, blocks[name]),
      'sampler': lambda name: replay.sample(name, BLOCK),
    }
    self._threads = [
      threading.Thread(target=self._go_on, args=(who, call, list(blocks)))
      for who, call in calls.items()
    ]
    for thread in self._threads:
      thread.start()

  def taken(self) -> dict[str, list[float]]:
    """Seconds of each call since the last time."""
    taken = self._spent
    self._spent = {who: [] for who in taken}
    return taken

  def stop(self) -> None:
    self._over.set()
    for thread in self._threads:
      thread.join()

  def _go_on(self, who: str, call: Callable[[str], object], names: list[str]) -> None:
    while not self._over.is_set():
      for name in names:
        begun = time.perf_counter()
        call(name)
        self._spent[who].append(time.perf_counter() - begun)
      # A node has more to do than to call: without a rest they would have all cores.
      time.sleep(0.002)


def written(before: set[int], place: Path) -> int:
  """Bytes of a checkpoint that it does not share with another."""
  status = [path.stat() for path in place.iterdir()]
  return sum(each.st_size for each in status if each.st_ino not in before)


def copy(source: Path, target: Path) -> float:
  """Seconds to write the same bytes, from memory, to the same disk."""
  data = np.ones(PIECE, np.uint8)
  left = sum(path.stat().st_size for path in source.iterdir())
  begun = time.perf_counter()
  with open(target, 'wb', buffering=0) as file:
    while left > 0:
      left -= file.write(data[:left].data)
    os.fsync(file.fileno())
  seconds = time.perf_counter() - begun
  target.unlink()
  return seconds


def measure(rounds: int, megabytes: int, mapped: bool, where: str | None) -> Any:
  declared = tables(megabytes)
  spent: dict[str, list[float]] = {'full': [], 'incremental': [], 'copy': []}
  calls: dict[str, dict[str, list[float]]] = {
    when: {'writer': [], 'sampler': []} for when in ('without', 'with')
  }
  sizes = {}
  with tempfile.TemporaryDirectory(dir=where) as folder:
    for number in range(rounds):
      places = iter(Path(folder, f'{number}-{name}') for name in ('alone', 'beside'))

      def make(places: Iterator[Path] = places) -> NativeReplay:
        directory = str(next(places))
        columns = folder if mapped else None
        replay = NativeReplay(declared, directory, columns_directory=columns)
        fill(replay, declared)
        return replay

      replay = make()
      seen: set[int] = set()
      for kind in ('full', 'incremental'):
        begun = time.perf_counter()
        place = Path(replay.checkpoint())
        spent[kind].append(time.perf_counter() - begun)
        sizes[kind] = written(seen, place)
        seen |= {path.stat().st_ino for path in place.iterdir()}
        replay.insert('frames', block_of(declared[0], declared[0].max_size // 100))
      replay.close()
      spent['copy'].append(copy(place, Path(folder, 'copy')))

      replay = make()
      callers = Callers(replay, declared)
      try:
        time.sleep(1)
        note(calls['without'], callers)
        replay.checkpoint()
        note(calls['with'], callers)
      finally:
        callers.stop()
        replay.close()
  copied = statistics.median(spent['copy'])
  return {
    'mapped': mapped,
    **{
      kind: {
        'seconds': round(statistics.median(spent[kind]), 3),
        'MB': round(sizes[kind] / 1e6),
        'over_copy_of_all': round(statistics.median(spent[kind]) / copied, 2),
      }
      for kind in ('full', 'incremental')
    },
    'copy_seconds': round(copied, 3),
    'calls_ms': {
      who: {when: shown(calls[when][who]) for when in calls}
      for who in ('writer', 'sampler')
    },
  }


def fill(replay: NativeReplay, declared: list[Table]) -> None:
  for table in declared:
    step = min(table.max_size, 10_000)
    block = block_of(table, step)
    for _ in range(table.max_size // step):
      replay.insert(table.name, block)


def note(calls: dict[str, list[float]], callers: Callers) -> None:
  for who, seconds in callers.taken().items():
    calls[who] += seconds


def shown(seconds: list[float]) -> dict[str, float]:
  """Milliseconds of a call."""
  p50, p99, most = np.percentile(seconds, [50, 99, 100]) * 1e3
  return {'p50': round(p50, 3), 'p99': round(p99, 3), 'max': round(most, 3)}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--megabytes', type=int, default=1024, help='of frames')
  parser.add_argument('--mapped', action='store_true', help='columns on that disk too')
  parser.add_argument('--directory', default=None, help='on the disk to be measured')
  options = parser.parse_args()
  versions = {'python': platform.python_version(), 'numpy': np.__version__}
  figures = measure(
    options.rounds, options.megabytes, options.mapped, options.directory
  )
  print(json.dumps({'benchmark': 'checkpoint', **versions, **figures}))


if __name__ == '__main__':
  main()
