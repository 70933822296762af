"""Large messages through shared memory: never aliased, never leaked, never needed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callsheet.calls import call_async
from callsheet.launch import courier
from callsheet.launch.courier import segments
from tests.launch.conftest import wait_for
from tests.launch.courier_services import SECRET, Service

pytestmark = pytest.mark.timeout(60)
SIZE = segments.SMALLEST + 1


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
  server = courier.Server(f'unix:{tmp_path}/s', SECRET, 'service')
  server.serve(Service())
  client = courier.connect(server.address, SECRET, peer='service', deadline=20.0)
  yield client
  courier.close(client)
  server.close()


def made() -> int:
  """How many bytes this process sends through (server and client are one here)."""
  return segments._bytes


def test_used_again_once_free(client: Any) -> None:
  before = made()
  for i in range(20):
    assert (client.echo(np.full(SIZE, i, np.uint8)) == i).all()
  first = made() - before
  assert 0 < first <= 4 * segments.size_class(SIZE + 4096 + 64)
  courier.close(client)
  wait_for(lambda: made() <= before + first // 2)


def test_what_is_held_is_never_overwritten(client: Any) -> None:
  chance = random.Random(5)
  held: list[tuple[int, Any]] = []
  for step in range(120):
    while held and chance.random() < 0.5:
      held.pop(chance.randrange(len(held)))
    size = chance.choice([SIZE, 2 * SIZE, 3 * SIZE, 100])
    value = {'a': np.full(size, step % 256, np.uint8), 'b': np.full(5000, step)}
    back = client.echo(value)
    held.append((step % 256, back['a'][:: chance.randrange(1, 50)]))
    back['b'][:] = -1
    for written, view in held:
      assert view[0] == written and view[-1] == written


def test_many_calls_at_once(client: Any) -> None:
  futures = [call_async(client.echo, np.full(SIZE, i, np.uint8)) for i in range(60)]
  results = [future.result(20) for future in futures]
  for i, result in enumerate(results):
    assert (result == i).all()


def test_without_memory_the_socket_does(
  client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(segments, '_MOST_BYTES', 0)
  before = made()
  assert (client.echo(np.full(5 * SIZE, 3, np.uint8)) == 3).all()
  assert made() == before
  monkeypatch.undo()
  assert (client.echo(np.full(5 * SIZE, 4, np.uint8)) == 4).all()
  assert made() > before


def test_no_descriptor_no_segment(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
  def refuse(name: str) -> int:
    raise OSError(24, f'too many open files for {name}')

  before = made()
  monkeypatch.setattr(os, 'memfd_create', refuse)
  assert (client.echo(np.full(5 * SIZE, 3, np.uint8)) == 3).all()
  assert made() == before


@pytest.mark.filterwarnings('ignore:.*fork')
def test_a_forked_childs_arrays_are_not_overwritten(client: Any) -> None:
  inherited = client.echo(np.full(SIZE, 5, np.uint8))
  go, wrote = os.pipe()
  pid = os.fork()
  if pid == 0:
    os.read(go, 1)
    os._exit(0 if (inherited == 5).all() else 1)
  del inherited
  for i in range(20, 40):
    assert (client.echo(np.full(SIZE, i, np.uint8)) == i).all()
  os.write(wrote, b'x')
  assert os.waitpid(pid, 0)[1] == 0
  os.close(go)
  os.close(wrote)
