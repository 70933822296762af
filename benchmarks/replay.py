"""The native replay against dm-reverb's own best ways, in one run: one line of JSON.

python benchmarks/replay.py [--rounds 5]

Rows `remote` have the server in another process on this host (the courier over a unix
socket, Reverb's gRPC); `colocated` ones in this process. Of Reverb the fastest of
`Client.sample`, `TrajectoryDataset` and, colocated, our own engine on its binding
counts. Rows `append` are time steps in blocks `[16, 16]` that become 3-step
transitions, of which Reverb's engine here is our own. Rounds are interleaved; medians.
Where dm-reverb is not installed only the absolute figures are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from replay_append import rows as append_rows
from replay_processes import SECRET, Child, child, fill_peer
from replay_rows import (
  BLOCK,
  HELD,
  TABLES,
  block_of,
  copy_bandwidth,
  item_bytes,
  ratio,
  table,
  timed,
)

from callsheet.calls import call_async
from callsheet.launch import courier
from callsheet.nodes.native_replay import NativeReplay

TARGETS = {
  'sample_small_remote': 30.0,
  'sample_small_colocated': 50.0,
  'sample_frames_remote': 5.0,
  'sample_frames_colocated': 5.0,
  'insert_small': 50.0,
  'insert_frames': 5.0,
}
HAVE_REVERB = importlib.util.find_spec('reverb') is not None
# Batches, or blocks of each writer, in one measurement.
NATIVE_TIMES = {'small': 200, 'frames': 16}
REVERB_TIMES = {'small': 8, 'frames': 4}
WRITTEN = {
  ('native', 'small'): 200,
  ('native', 'frames'): 8,
  ('reverb', 'small'): 3,
  ('reverb', 'frames'): 1,
}

Draws = Mapping[str, Callable[[int], float]]
"""By way: the seconds of a batch, from so many of them."""


def native(replay: Any, kind: str, sampler: str, batches: int) -> Draws:
  """As the learner does it: the next sample is asked for before this one is used."""
  name = TABLES[kind, sampler].name
  priorities = np.random.default_rng(0).random((batches, BLOCK)) + 0.1

  def measure(times: int) -> float:
    asked = call_async(replay.sample, name, BLOCK, batches)

    def draw() -> None:
      nonlocal asked
      drawn = asked.result()
      asked = call_async(replay.sample, name, BLOCK, batches)
      if sampler == 'prioritized':
        replay.update_priorities(name, drawn.keys, priorities)

    spent = timed(draw, max(2, times // batches)) / batches
    asked.result()
    return spent

  def direct(times: int) -> float:
    def draw() -> None:
      drawn = replay.sample(name, BLOCK, batches)
      if sampler == 'prioritized':
        replay.update_priorities(name, drawn.keys, priorities)

    return timed(draw, max(2, times // batches)) / batches

  remote = not isinstance(replay, NativeReplay)
  return {'ahead': measure, 'one by one': direct} if remote else {'direct': direct}


def reverbs(address: str, kind: str, engine: Any | None) -> Draws:
  import replay_peer

  declared = TABLES[kind, 'uniform']
  ways: dict[str, Callable[[], object]] = {
    'Client.sample': replay_peer.by_client(address, declared, BLOCK),
    'TrajectoryDataset': replay_peer.by_dataset(address, declared, BLOCK),
  }
  if engine is not None:
    ways['our Reverb engine'] = lambda: engine.sample(declared.name, BLOCK)
  return {
    name: lambda times, draw=draw: timed(draw, times)  # type: ignore[misc]
    for name, draw in ways.items()
  }


def written(writers: list[Child], blocks: int) -> float:
  """Seconds a block, all writers together."""
  for writer in writers:
    writer.tell(str(blocks))
  return max(float(writer.read()) for writer in writers) / (blocks * len(writers))


Rows = dict[str, tuple[str, dict[str, Draws]]]
"""By row: the kind of item, and the ways of each engine."""


def sampling_rows(stack: ExitStack, remote: dict[str, str]) -> Rows:
  client = courier.connect(remote['native'], SECRET, peer='replay')
  stack.callback(courier.close, client)
  here = NativeReplay(list(TABLES.values()))
  stack.callback(here.close)
  for (kind, _), declared in TABLES.items():
    for _ in range(HELD[kind] // 500):
      here.insert(declared.name, block_of(declared, 500))
  rows: Rows = {}
  for kind in HELD:
    for where, replay in (('remote', client), ('colocated', here)):
      for batches in (1, 8):
        for sampler in ('uniform', 'prioritized'):
          name = f'sample_{kind}_{where}_{sampler}_{batches}x256'
          rows[name] = kind, {'native': native(replay, kind, sampler, batches)}
  if HAVE_REVERB:
    addresses = {'remote': (remote['reverb'], None), 'colocated': _reverb_here(stack)}
    for kind in HELD:
      for where, (address, engine) in addresses.items():
        rows[f'sample_{kind}_{where}_uniform_1x256'][1]['reverb'] = reverbs(
          address, kind, engine
        )
  return rows


def _reverb_here(stack: ExitStack) -> tuple[str, Any]:
  import replay_peer

  from callsheet.nodes.reverb_replay import ReverbReplay

  peer = replay_peer.Peer(list(TABLES.values()))
  stack.callback(peer.close)
  fill_peer(replay_peer, peer.address)
  engine = ReverbReplay([TABLES[kind, 'uniform'] for kind in HELD])
  stack.callback(engine.close)
  for kind, held in HELD.items():
    for _ in range(held // 500):
      declared = TABLES[kind, 'uniform']
      engine.insert(declared.name, block_of(declared, 500))
  return peer.address, engine


def measure(rounds: int) -> dict[str, Any]:
  engines = ['native', 'reverb'] if HAVE_REVERB else ['native']
  spent: dict[str, dict[str, dict[str, list[float]]]] = {}
  kinds: dict[str, str] = {}
  copies = []
  with ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    remote = {
      engine: stack.enter_context(child('serve', engine, f'unix:{folder}/s')).said
      for engine in engines
    }
    rows = sampling_rows(stack, remote)
    for round in range(rounds + 1):  # the first one warms up
      if round:
        copies.append(copy_bandwidth())
      for name, (kind, by_engine) in rows.items():
        kinds[name] = kind
        for engine, ways in by_engine.items():
          times = {'native': NATIVE_TIMES, 'reverb': REVERB_TIMES}[engine][kind]
          for way, draw in ways.items():
            took = draw(times)
            if round:
              _note(spent, name, engine, way, took)
    for kind in HELD:
      for count in (1, 4):
        name = f'insert_{kind}_{count}_writers'
        kinds[name] = kind
        with ExitStack() as writing:
          writers = {
            engine: [
              writing.enter_context(child('write', engine, address, kind))
              for _ in range(count)
            ]
            for engine, address in remote.items()
          }
          for _ in range(rounds):
            for engine, children in writers.items():
              took = written(children, WRITTEN[engine, kind])
              _note(spent, name, engine, 'blocks of 256', took)
    print('sampling and inserting measured', file=sys.stderr)
  return report(spent, kinds, copies) | {'million_over_ten_thousand': million(rounds)}


def _note(spent: Any, name: str, engine: str, way: str, took: float) -> None:
  ways = spent.setdefault(name, {}).setdefault(engine, {})
  ways.setdefault(way, []).append(took)


def report(spent: Any, kinds: dict[str, str], copies: list[float]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  best: dict[tuple[str, str], list[float]] = {}
  for name, by_engine in spent.items():
    row: dict[str, Any] = {}
    size = item_bytes(TABLES[kinds[name], 'uniform'])
    for engine, ways in by_engine.items():
      way = min(ways, key=lambda each: statistics.median(ways[each]))
      best[name, engine] = ways[way]
      per_second = BLOCK / statistics.median(ways[way])
      row[engine] = {
        'items_per_s': round(per_second),
        'MB_per_s': round(per_second * size / 1e6, 1),
        'by': way,
      }
    if 'reverb' in by_engine:
      row['ratio'] = ratio(best[name, 'reverb'], best[name, 'native'])
      row['target'] = next(t for start, t in TARGETS.items() if name.startswith(start))
      row['reached'] = row['ratio'] >= row['target']
    found[name] = row
  copy = statistics.median(copies)
  found['memory_copy_MB_per_s'] = round(copy / 1e6)
  found['frames_colocated_over_memory_copy'] = {
    f'{batches}x256': round(
      found[f'sample_frames_colocated_uniform_{batches}x256']['native']['MB_per_s']
      / (copy / 1e6),
      2,
    )
    for batches in (1, 8)
  } | {'target': 0.5}
  found['prioritized_and_update_over_uniform'] = {
    f'{kind}_{where}_{batches}x256': ratio(
      best[f'sample_{kind}_{where}_prioritized_{batches}x256', 'native'],
      best[f'sample_{kind}_{where}_uniform_{batches}x256', 'native'],
    )
    for kind in HELD
    for where in ('remote', 'colocated')
    for batches in (1, 8)
  } | {'target': 1.5}
  if not HAVE_REVERB:
    found['note'] = 'dm-reverb is not installed here: absolute figures only'
  return found


def million(rounds: int) -> dict[str, Any]:
  """What a batch of small items costs with 1,000,000 stored, against 10,000."""
  found: dict[str, Any] = {'target': 1.2}
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
          draws = native(replay, 'small', sampler, batches)
          spent[size].append(draws['direct'](NATIVE_TIMES['small']))
      found[f'{sampler}_{batches}x256'] = ratio(spent[sizes[1]], spent[sizes[0]])
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=5)
  options = parser.parse_args()
  versions = {'python': platform.python_version(), 'numpy': np.__version__}
  figures = measure(options.rounds) | append_rows(options.rounds)
  print(json.dumps({'benchmark': 'replay', **versions, **figures}))


if __name__ == '__main__':
  main()
