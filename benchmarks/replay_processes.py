"""The processes of the replay's benchmark: servers to sample from, writers that write.

python benchmarks/replay_processes.py serve native|reverb
python benchmarks/replay_processes.py write native|reverb ADDRESS KIND

A server prints its address; a writer prints 'ready', writes as many blocks as each line
of its standard input says, and prints the seconds.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from replay_rows import BLOCK, HELD, TABLES, block_of

from callsheet.launch import courier

SECRET = b'the benchmark needs no secret...'


def serve(engine: str) -> None:
  tables = list(TABLES.values())
  if engine == 'native':
    from callsheet.nodes.native_replay import NativeReplay

    replay = NativeReplay(tables)
    for (kind, _), declared in TABLES.items():
      for _ in range(HELD[kind] // 500):
        replay.insert(declared.name, block_of(declared, 500))
    server = courier.Server(sys.argv[3], SECRET, 'replay')
    server.serve(replay)
    print(server.address, flush=True)
    sys.stdin.read()
    server.close()
    replay.close()
    return
  import replay_peer

  peer = replay_peer.Peer(tables)
  fill_peer(replay_peer, peer.address)
  print(peer.address, flush=True)
  sys.stdin.read()
  peer.close()


def fill_peer(replay_peer: Any, address: str) -> None:
  client = replay_peer.reverb.Client(address)
  for (kind, _), declared in TABLES.items():
    replay_peer.write(client, declared.name, block_of(declared, HELD[kind]))


def write(engine: str, address: str, kind: str) -> None:
  declared = TABLES[kind, 'uniform']
  block = block_of(declared, BLOCK)
  insert: Callable[[], object]
  if engine == 'native':
    client = courier.connect(address, SECRET, peer='replay')
    insert = lambda: client.insert(declared.name, block)  # noqa: E731
  else:
    import replay_peer

    peer = replay_peer.reverb.Client(address)
    insert = lambda: replay_peer.write(peer, declared.name, block)  # noqa: E731
  insert()
  print('ready', flush=True)
  for line in sys.stdin:
    begun = time.perf_counter()
    for _ in range(int(line)):
      insert()
    print(time.perf_counter() - begun, flush=True)


class Child:
  """One of these processes."""

  def __init__(self, *arguments: str) -> None:
    self._process = subprocess.Popen(
      [sys.executable, __file__, *arguments],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    self.said = self.read()

  def tell(self, line: str) -> None:
    assert self._process.stdin is not None
    self._process.stdin.write(line + '\n')
    self._process.stdin.flush()

  def read(self) -> str:
    assert self._process.stdout is not None
    line = self._process.stdout.readline().strip()
    if not line:
      raise RuntimeError(f'{self._process.args} ended')
    return line

  def close(self) -> None:
    assert self._process.stdin is not None
    self._process.stdin.close()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[Child]:
  started = Child(*arguments)
  try:
    yield started
  finally:
    started.close()


if __name__ == '__main__':
  {'serve': lambda: serve(sys.argv[2]), 'write': lambda: write(*sys.argv[2:])}[
    sys.argv[1]
  ]()
