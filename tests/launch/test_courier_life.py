"""Servers and clients that come and go: restarts, deaths, forks, and what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from callsheet import errors
from callsheet.calls import blocking, call_async, with_deadline
from callsheet.launch import courier
from callsheet.launch.courier import address as addresses
from tests.launch import courier_services
from tests.launch.conftest import wait_for
from tests.launch.courier_services import SECRET, Service

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=['unix', 'tcp'])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
  if request.param == 'unix':
    return f'unix:{tmp_path}/s'
  with socket.create_server(('127.0.0.1', 0)) as free:
    return f'tcp:127.0.0.1:{free.getsockname()[1]}'


def serving(address: str) -> courier.Server:
  server = courier.Server(address, SECRET, 'service')
  server.serve(Service())
  return server


@contextlib.contextmanager
def server_process(address: str) -> Iterator[subprocess.Popen[str]]:
  process = subprocess.Popen(
    [sys.executable, '-m', 'tests.launch.courier_services', address],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=Path(courier_services.__file__).parents[2],
  )
  assert process.stdout is not None and process.stdin is not None
  assert process.stdout.readline().strip() == address
  try:
    yield process
  finally:
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def test_client_waits_for_its_server(address: str) -> None:
  client: Any = courier.connect(address, SECRET, peer='service', deadline=20.0)
  future = call_async(client.ping)
  time.sleep(0.2)
  server = serving(address)
  assert future.result(10) == 'pong'
  courier.close(client)
  server.close()


def test_unavailable_when_nobody_comes(address: str) -> None:
  client: Any = courier.connect(address, SECRET, peer='service', deadline=0.2)
  with pytest.raises(errors.Unavailable, match=r'service\.ping was not sent') as caught:
    client.ping()
  assert address in str(caught.value) and caught.value.peer == 'service'
  with pytest.raises(errors.Unavailable):
    with_deadline(client.wait, None)()
  courier.close(client)


def test_client_survives_a_restart(address: str) -> None:
  server = serving(address)
  client: Any = courier.connect(address, SECRET, peer='service', deadline=20.0)
  for future in [call_async(client.ping) for _ in range(20)]:
    assert future.result(10) == 'pong'
  for _ in range(3):
    server.close()
    server = serving(address)
    for _ in range(5):
      assert client.ping() == 'pong'
  server.close()
  with pytest.raises(errors.Unavailable):
    with_deadline(client.ping, 0.2)()
  server = serving(address)
  assert client.ping() == 'pong'
  courier.close(client)
  server.close()


def test_a_restarted_server_may_have_other_methods(address: str) -> None:
  class Before:
    def first(self) -> str:
      return 'first'

    def both(self) -> str:
      return 'before'

  class After:
    def added(self) -> str:
      return 'added'

    @blocking
    def both(self) -> str:
      time.sleep(0.4)
      return 'after'

  server = courier.Server(address, SECRET, 'service')
  server.serve(Before())
  client: Any = courier.connect(address, SECRET, peer='service', deadline=0.3)
  first = client.first
  assert (first(), client.both()) == ('first', 'before')
  server.close()
  server = courier.Server(address, SECRET, 'service')
  server.serve(After())
  assert client.both() == 'after'
  assert client.added() == 'added'
  with pytest.raises(errors.NoSuchMethod):
    first()
  courier.close(client)
  server.close()


def test_killed_server_ends_blocking_and_bounded_calls(address: str) -> None:
  with server_process(address) as process:
    client: Any = courier.connect(address, SECRET, peer='service', deadline=30.0)
    futures = [call_async(client.wait), call_async(client.sleep, 30.0)]
    assert client.pid() == process.pid
    deadline = time.monotonic() + 20
    while client.ping() and process.poll() is None:
      if all(not future.done() for future in futures):
        break
      assert time.monotonic() < deadline
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    for future in futures:
      error = future.exception(10)
      assert isinstance(error, errors.ConnectionLost)
      assert 'may have run' in str(error)
  with pytest.raises(errors.Unavailable):
    with_deadline(client.ping, 0.2)()
  with server_process(address):
    assert client.ping() == 'pong'
    courier.close(client)


def test_killed_client_leaves_the_server_well(address: str) -> None:
  server = serving(address)
  code = (
    'import sys; from callsheet.launch import courier\n'
    'from callsheet.calls import call_async\n'
    f'c = courier.connect({address!r}, {SECRET!r}, peer="service")\n'
    'f = [call_async(c.wait) for _ in range(5)]\n'
    'print(c.ping(), flush=True); sys.stdin.read()'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  assert process.stdout is not None and process.stdout.readline() == b'pong\n'
  process.kill()
  process.communicate()
  client: Any = courier.connect(address, SECRET, peer='service')
  assert client.ping() == 'pong'
  client.wake()
  courier.close(client)
  server.close()


def test_no_thread_keeps_the_interpreter_alive(address: str) -> None:
  code = (
    'from callsheet.launch import courier\n'
    'from callsheet.calls import call_async\n'
    'from tests.launch.courier_services import SECRET, Service\n'
    f's = courier.Server({address!r}, SECRET, "service"); s.serve(Service())\n'
    'c = courier.connect(s.address, SECRET, peer="service")\n'
    'f = [call_async(c.wait) for _ in range(5)]\n'
    'print(c.ping())'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    timeout=30,
    cwd=Path(courier_services.__file__).parents[2],
  )
  assert (done.returncode, done.stdout) == (0, 'pong\n'), done.stderr


@pytest.mark.filterwarnings('ignore:.*fork')
def test_forked_child_calls_for_itself(address: str) -> None:
  with server_process(address):
    client: Any = courier.connect(address, SECRET, peer='service', deadline=20.0)
    inherited = client.echo(np.full(1_000_000, 5, np.uint8))
    waiting = call_async(client.wait)
    children = []
    for number in range(3):
      pid = os.fork()
      if pid == 0:
        try:
          right = all(client.add(number, i) == number + i for i in range(50))
          right &= call_async(client.echo, number).result(10) == number
          right &= bool((inherited == 5).all())
          os._exit(0 if right else 1)
        except BaseException:
          os._exit(2)
      children.append(pid)
    for i in range(50):
      assert client.add(100, i) == 100 + i
      client.echo(np.zeros(1_000_000, np.uint8))
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    client.wake()
    assert waiting.result(10) == 'woken'
    courier.close(client)


@pytest.mark.filterwarnings('ignore:.*fork')
def test_forked_child_lets_go_of_the_server(address: str) -> None:
  server = serving(address)
  client: Any = courier.connect(address, SECRET, peer='service', deadline=5.0)
  assert client.ping() == 'pong'
  pid = os.fork()
  if pid == 0:
    time.sleep(60)
    os._exit(0)
  try:
    assert client.ping() == 'pong'
    server.close()
    server = serving(address)
    assert client.ping() == 'pong'
  finally:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    courier.close(client)
    server.close()


def test_close_leaves_nothing(address: str) -> None:
  me = psutil.Process()
  threads, files = threading.active_count(), me.num_fds()
  server = serving(address)
  clients: list[Any] = [
    courier.connect(address, SECRET, peer='service') for _ in range(5)
  ]
  futures = [call_async(client.ping) for client in clients for _ in range(20)]
  assert [future.result(20) for future in futures] == ['pong'] * 100
  for client in clients:
    assert client.echo(np.zeros(2_000_000)).size == 2_000_000
  for client in clients:
    courier.close(client)
  server.close()
  server.close()
  until = time.monotonic() + 10
  while threading.active_count() > threads or me.num_fds() > files:
    assert time.monotonic() < until, (threading.enumerate(), me.num_fds(), files)
    time.sleep(0.02)
  path = addresses.parse(address).path
  assert not path or not os.path.exists(path)


def test_dropped_client_closes_its_connections(tmp_path: Path) -> None:
  server = serving(f'unix:{tmp_path}/s')
  me = psutil.Process()
  client: Any = courier.connect(server.address, SECRET, peer='service')
  client.ping()
  files = me.num_fds()
  del client
  until = time.monotonic() + 10
  while me.num_fds() > files - 2:
    assert time.monotonic() < until
    time.sleep(0.02)
  server.close()


def test_close_does_not_wait_for_blocked_handlers(address: str) -> None:
  service = Service()
  server = courier.Server(address, SECRET, 'service')
  server.serve(service)
  client: Any = courier.connect(address, SECRET, peer='service')
  futures = [call_async(client.wait) for _ in range(10)]
  for _ in futures:
    assert service.entered.acquire(timeout=10)
  begun = time.monotonic()
  server.close()
  assert time.monotonic() - begun < 5
  for future in futures:
    assert isinstance(future.exception(5), errors.ConnectionLost)
  service.gate.set()
  courier.close(client)


def test_close_lets_short_calls_finish(address: str) -> None:
  server = serving(address)
  client: Any = courier.connect(address, SECRET, peer='service')
  client.ping()
  future = call_async(client.sleep, 0.2)
  while not server.statistics()['sleep'].running:
    time.sleep(0.005)
  server.close()
  assert future.result(5) is None
  courier.close(client)


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
  first = serving(f'unix:{tmp_path}/s')
  os.rename(tmp_path / 's', tmp_path / 'aside')
  second = serving(f'unix:{tmp_path}/s')
  first.close()
  client: Any = courier.connect(second.address, SECRET, peer='service', deadline=10)
  assert client.ping() == 'pong'
  courier.close(client)
  second.close()
  assert not (tmp_path / 's').exists()


def test_many_threads_share_a_client(address: str) -> None:
  server = serving(address)
  client: Any = courier.connect(address, SECRET, peer='service', deadline=30.0)
  wrong: list[object] = []

  def call(number: int) -> None:
    for i in range(30):
      array = np.full(30_000, number * 100 + i, np.int64)
      back = client.echo({'n': number, 'a': array})
      if back['n'] != number or not (back['a'] == array).all():
        wrong.append((number, i))

  threads = [threading.Thread(target=call, args=(n,)) for n in range(16)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong
  wait_for(lambda: server.statistics()['echo'].calls == 480)
  courier.close(client)
  server.close()


def test_arrays_outlive_their_connection(address: str) -> None:
  server = serving(address)
  client: Any = courier.connect(address, SECRET, peer='service')
  kept = [client.echo(np.full(1_000_000, i, np.uint8)) for i in range(6)]
  courier.close(client)
  server.close()
  del client, server
  for i, array in enumerate(kept):
    assert (array == i).all()
    array[:] = i + 1
    assert (array == i + 1).all()
