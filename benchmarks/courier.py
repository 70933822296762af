"""The courier against Launchpad's, in one run: one line of JSON.

python benchmarks/courier.py [--rounds 7] [--rows small,large,...]

Server in a process of its own; rounds interleaved between the systems; medians.
Launchpad's side carries bytes (it deadlocks on a client's numpy arguments).
Where Launchpad is not installed only the absolute figures are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from callsheet.calls import blocking, call_async
from callsheet.launch import courier as ours

HERE = os.path.dirname(os.path.abspath(__file__))
# This file's own name must not hide Launchpad's package.
sys.path = [path for path in sys.path if os.path.abspath(path) != HERE]

SECRET = b'the benchmark needs no secret...'
LARGE = 16 * 1024 * 1024
FETCHERS, CALLERS, BLOCKED = 8, 8, 32
TARGETS = {
  'small_call_p50': {'tcp': 2.5, 'unix': 2.5},
  'calls_per_s_8_callers': {'tcp': 2.0, 'unix': 2.0},
  'argument_16MB': {'tcp': 5.0, 'unix': 8.0},
  'result_16MB': {'tcp': 5.0, 'unix': 8.0},
  'fetch_16MB_8_processes': {'tcp': 10.0, 'unix': 10.0},
}


class Service:
  """What is called; Launchpad's side gets its methods one by one."""

  def __init__(self, result: object) -> None:
    self._result = result
    self._woken = threading.Event()

  def ping(self) -> int:
    return 0

  def sink(self, value: object) -> None:
    del value

  def fetch(self) -> object:
    return self._result

  @blocking
  def wait(self) -> None:
    self._woken.wait()

  def wake(self) -> None:
    self._woken.set()


def serve(system: str, where: str) -> None:
  """A server process: prints its address, ends with its standard input."""
  if system == 'launchpad':
    import courier

    service = Service(b'x' * LARGE)
    server = courier.Server('benchmark', thread_pool_size=64)
    for name in ('ping', 'sink', 'fetch', 'wait', 'wake'):
      server.Bind(name, getattr(service, name))
    server.Start()
    print(server.address, flush=True)
    sys.stdin.read()
    os._exit(0)
  mine = ours.Server(where, SECRET, 'benchmark')
  mine.serve(Service(np.ones(LARGE, np.uint8)))
  print(mine.address, flush=True)
  sys.stdin.read()
  mine.close()


def connect(system: str, address: str) -> Any:
  if system == 'launchpad':
    import courier

    return courier.Client(address)
  return ours.connect(address, SECRET, peer='benchmark')


def fetch(addresses: dict[str, str]) -> None:
  """A fetching process: each line of standard input names the system to fetch from."""
  clients = {system: connect(system, address) for system, address in addresses.items()}
  for client in clients.values():
    client.fetch()
  print('ready', flush=True)
  for line in sys.stdin:
    assert len(clients[line.strip()].fetch()) == LARGE
    print('done', flush=True)
  os._exit(0)


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
  process = subprocess.Popen(
    [sys.executable, os.path.abspath(__file__), *arguments],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  assert process.stdin is not None and process.stdout is not None
  try:
    yield process
  finally:
    process.stdin.close()
    try:
      process.wait(5)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
  assert process.stdout is not None
  return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], text: str) -> None:
  assert process.stdin is not None
  process.stdin.write(text + '\n')
  process.stdin.flush()


def timed(call: Callable[[], object], times: int) -> list[float]:
  spent = []
  for _ in range(times):
    begun = time.perf_counter()
    call()
    spent.append(time.perf_counter() - begun)
  return spent


def small(client: Any) -> float:
  return statistics.median(timed(client.ping, 300))


def rate(client: Any) -> float:
  """Seconds for each call, with 8 threads of this process calling at once."""
  each = 150
  threads = [
    threading.Thread(target=timed, args=(client.ping, each)) for _ in range(CALLERS)
  ]
  begun = time.perf_counter()
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return (time.perf_counter() - begun) / (each * CALLERS)


def measure(rounds: int, wanted: set[str]) -> dict[str, Any]:
  systems = ['tcp', 'unix']
  if importlib.util.find_spec('courier') is not None:
    systems.append('launchpad')
  with ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    places = {'tcp': 'tcp:127.0.0.1:0', 'unix': f'unix:{folder}/s', 'launchpad': ''}
    servers = {s: stack.enter_context(child('--serve', s, places[s])) for s in systems}
    addresses = {system: line(server) for system, server in servers.items()}
    clients = {system: connect(system, addresses[system]) for system in systems}
    payload: dict[str, Any] = dict.fromkeys(systems, np.ones(LARGE, np.uint8))
    payload['launchpad'] = b'x' * LARGE
    fetchers = []
    if not wanted or 'fetch_16MB_8_processes' in wanted:
      fetchers = [
        stack.enter_context(child('--fetch', json.dumps(addresses)))
        for _ in range(FETCHERS)
      ]
      assert all(line(fetcher) == 'ready' for fetcher in fetchers)

    def fetch_at_once(system: str) -> float:
      begun = time.perf_counter()
      for fetcher in fetchers:
        tell(fetcher, system)
      for fetcher in fetchers:
        assert line(fetcher) == 'done'
      return time.perf_counter() - begun

    rows: dict[str, Callable[[str], float]] = {
      'small_call_p50': lambda s: small(clients[s]),
      'calls_per_s_8_callers': lambda s: rate(clients[s]),
      'argument_16MB': lambda s: statistics.median(
        timed(lambda: clients[s].sink(payload[s]), 5)
      ),
      'result_16MB': lambda s: statistics.median(timed(clients[s].fetch, 5)),
      'fetch_16MB_8_processes': fetch_at_once,
    }
    rows = {name: row for name, row in rows.items() if not wanted or name in wanted}
    for row in rows.values():
      for system in systems:
        row(system)  # connections, buffers and pools are warm
    spent: dict[str, dict[str, list[float]]] = {
      name: {system: [] for system in systems} for name in rows
    }
    for _ in range(rounds):
      for name, row in rows.items():
        for system in systems:
          spent[name][system].append(row(system))
    report: dict[str, Any] = {
      name: summary(name, by_system) for name, by_system in spent.items()
    }
    report['ping_behind_32_blocked_ms'] = {
      system: round(behind_blocked(clients[system]) * 1e3, 3)
      for system in ('tcp', 'unix')
    }
    for system in ('tcp', 'unix'):
      ours.close(clients[system])
  if 'launchpad' not in systems:
    report['note'] = 'Launchpad is not installed here: absolute figures only'
  return report


def behind_blocked(client: Any) -> float:
  """Median seconds of a ping while 32 handlers of the server sleep."""
  futures = [call_async(client.wait) for _ in range(BLOCKED)]
  time.sleep(0.3)
  spent = statistics.median(timed(client.ping, 300))
  client.wake()
  for future in futures:
    future.result(30)
  return spent


def summary(name: str, by_system: dict[str, list[float]]) -> dict[str, Any]:
  """Milliseconds (or calls a second), ratios to Launchpad's, and whether they do."""
  medians = {system: statistics.median(spent) for system, spent in by_system.items()}
  per_second = name.startswith('calls_per_s')
  row: dict[str, Any] = {
    system: round(1 / spent) if per_second else round(spent * 1e3, 4)
    for system, spent in medians.items()
  }
  row['unit'] = '1/s' if per_second else 'ms'
  peer = medians.get('launchpad')
  if peer is not None:
    row['ratio'] = {s: round(peer / medians[s], 2) for s in ('tcp', 'unix')}
    row['target'] = TARGETS[name]
    row['reached'] = {
      s: row['ratio'][s] >= at_least for s, at_least in TARGETS[name].items()
    }
  return row


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--rows', default='', help='comma-separated; all if empty')
  parser.add_argument('--serve', nargs=2, help=argparse.SUPPRESS)
  parser.add_argument('--fetch', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve:
    serve(*options.serve)
  elif options.fetch:
    fetch(json.loads(options.fetch))
  else:
    wanted = {row for row in options.rows.split(',') if row}
    print(json.dumps({'benchmark': 'courier', **measure(options.rounds, wanted)}))


if __name__ == '__main__':
  main()
