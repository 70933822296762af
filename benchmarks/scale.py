"""How many actors one replay, learner and counter can serve: one line of JSON.

python benchmarks/scale.py [--actors 4 16 64 256 512] [--seconds 5] [--relays 0]

Actors are stubs that call as real ones do (a block of 256 transitions and a pull of the
parameters ten times a second, a count twice), as threads of four processes. For each
number of them: calls/s, MB/s and latencies at each service, and the share that was done
of what was due. A service is saturated where that share falls below nine tenths.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import scale_nodes
from scale_nodes import BLOCK_PERIOD, COUNT_PERIOD, PULL_PERIOD, scale_program

from callsheet import call_async
from callsheet.launch import Processes, start

PERIODS = {
  'replay.insert': BLOCK_PERIOD,
  'learner.parameters': PULL_PERIOD,
  'counter.add': COUNT_PERIOD,
}
SATURATED = 0.9


def measure(
  actors: int, seconds: float, parameter_bytes: int, relays: int
) -> dict[str, Any]:
  """One program of so many actors, once all of them run."""
  program, handles = scale_program(actors, parameter_bytes, relays)
  with start(program, Processes(echo=False)) as running:
    clients = [running.client(handle) for handle in handles]

    def ask(method: str) -> list[Any]:
      futures = [call_async(getattr(client, method)) for client in clients]
      return [future.result() for future in futures]

    while not all(set(PERIODS) <= set(done) for done in ask('done')):
      running.wait(timeout=0.2)
    before = ask('done')
    running.wait(timeout=seconds)
    after, latencies = ask('done'), ask('latencies')
  return {
    service: _service(service, seconds, before, after, latencies) for service in PERIODS
  }


def _service(
  service: str,
  seconds: float,
  before: list[dict[str, int]],
  after: list[dict[str, int]],
  latencies: list[dict[str, dict[str, float]]],
) -> dict[str, float]:
  calls = sum(b[service] - a[service] for a, b in zip(before, after, strict=True))
  rows = [each[service] for each in latencies]
  moved = sum(row['bytes_in'] + row['bytes_out'] for row in rows)
  per_call = moved / sum(row['calls'] for row in rows)
  return {
    'calls_per_s': calls / seconds,
    'share_of_due': calls / seconds * PERIODS[service] / len(rows),
    'MB_per_s': per_call * calls / seconds / 1e6,
    'p50_ms': 1e3 * statistics.median(row['latency_p50'] for row in rows),
    'p99_ms': 1e3 * max(row['latency_p99'] for row in rows),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--actors', type=int, nargs='+', default=[4, 8, 16, 32, 64, 128, 256, 512]
  )
  parser.add_argument('--seconds', type=float, default=5.0)
  parser.add_argument('--parameter_bytes', type=int, default=20_000)
  parser.add_argument('--relays', type=int, default=0)
  parser.add_argument('--rounds', type=int, default=1, help='medians of so many')
  options = parser.parse_args()
  levels: dict[str, Any] = {}
  for actors in options.actors:
    rounds = [
      measure(actors, options.seconds, options.parameter_bytes, options.relays)
      for _ in range(options.rounds)
    ]
    levels[str(actors)] = {
      service: {
        figure: statistics.median(each[service][figure] for each in rounds)
        for figure in rounds[0][service]
      }
      for service in PERIODS
    }
  saturated = {
    service: next(
      (
        int(actors)
        for actors, level in levels.items()
        if level[service]['share_of_due'] < SATURATED
      ),
      None,
    )
    for service in PERIODS
  }
  figures = {
    'benchmark': 'scale',
    'parameter_bytes': options.parameter_bytes,
    'rows_per_block': scale_nodes.ROWS,
    'relays': options.relays,
    'saturated_at': saturated,
    'levels': levels,
  }
  print(json.dumps(figures))


if __name__ == '__main__':
  main()
