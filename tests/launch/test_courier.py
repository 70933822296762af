"""Calls as a node makes them: results, errors, deadlines, futures, statistics."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from callsheet import errors
from callsheet.calls import call_async, with_deadline
from callsheet.launch import courier
from tests.launch.conftest import wait_for
from tests.launch.courier_services import SECRET, Awkward, Rejected, Service

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=['unix', 'tcp'])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
  return f'unix:{tmp_path}/s' if request.param == 'unix' else 'tcp:127.0.0.1:0'


@pytest.fixture
def service() -> Service:
  return Service()


@pytest.fixture
def server(address: str, service: Service) -> Iterator[courier.Server]:
  server = courier.Server(address, SECRET, 'service')
  server.serve(service)
  yield server
  service.gate.set()
  server.close()


@pytest.fixture
def client(server: courier.Server) -> Iterator[Any]:
  client = courier.connect(server.address, SECRET, peer='service', deadline=20.0)
  yield client
  courier.close(client)


def test_calls_look_like_the_service(client: Any) -> None:
  assert client.ping() == 'pong'
  assert client.add(1) == 2
  assert client.add(1, b=5, c=10) == 16
  assert client.echo({'a': [1, None, 'x']}) == {'a': [1, None, 'x']}


def test_arrays_in_both_directions(client: Any) -> None:
  arrays = {
    'large': np.arange(3_000_000, dtype=np.float32).reshape(1000, 3, 1000),
    'middle': [np.full((40, 40), i, np.float64) for i in range(50)],
    'small': np.arange(3),
    'strided': np.arange(100_000)[::3],
  }
  for _ in range(3):
    back = client.echo(arrays)
    np.testing.assert_array_equal(back['large'], arrays['large'])
    np.testing.assert_array_equal(back['strided'], arrays['strided'])
    assert [m[0, 0] for m in back['middle']] == list(range(50))
    back['large'][:] = 0  # an array of one's own
    back['small'][0] = 7
    back['middle'][0][:] = -1
    assert back['middle'][1][0, 0] == 1
  assert client.describe(arrays['large']) == ('ndarray', True, True)


def test_large_bytes(client: Any) -> None:
  data = os.urandom(3_000_000)
  assert client.echo(data) == data
  assert client.echo([bytearray(data), data])[0] == data


def test_jax_arrays_arrive_as_numpy(client: Any) -> None:
  jax = pytest.importorskip('jax')
  x = jax.numpy.arange(10_000.0).reshape(100, 100)
  assert client.describe(x)[0] == 'ndarray'
  np.testing.assert_array_equal(client.echo({'w': x})['w'], np.asarray(x))
  half = x.astype(jax.numpy.bfloat16)
  back = client.echo([half, half[0, 0]])
  assert back[0].dtype == half.dtype and back[0].shape == (100, 100)
  np.testing.assert_array_equal(back[0], np.asarray(half))
  assert back[1].shape == ()


def test_callables_travel_by_value(client: Any) -> None:
  offset = 10
  assert client.apply(lambda x: x + offset, 1) == 11

  class Local:
    value = 5

  assert client.echo(Local()).value == 5


def test_handlers_exception_arrives_as_its_own_type(client: Any) -> None:
  with pytest.raises(Rejected) as caught:
    client.fail(Rejected(42))
  assert caught.value.code == 42
  cause = caught.value.__cause__
  assert isinstance(cause, errors.RemoteTraceback)
  assert 'in fail' in str(cause) and 'Rejected' in str(cause)
  assert client.ping() == 'pong'


def test_exceptions_that_can_not_travel(client: Any) -> None:
  with pytest.raises(errors.RemoteError, match='its text') as caught:
    client.fail_locally()
  assert caught.value.peer == 'service'
  with pytest.raises(errors.RemoteError, match='awkward'):
    client.apply(_raise_awkward, 0)
  assert client.ping() == 'pong'


def _raise_awkward(_: int) -> None:
  raise Awkward(1, 2)


@pytest.mark.parametrize('error', [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_base_exceptions_end_neither_side(client: Any, error: BaseException) -> None:
  with pytest.raises(errors.RemoteError, match=type(error).__name__):
    client.fail(error)
  assert client.ping() == 'pong'


def test_unsendable_argument_is_named(client: Any) -> None:
  client.ping()
  with pytest.raises(errors.NotSendable, match=r"'a' of service\.add \(a lock\)"):
    client.add(threading.Lock())
  with pytest.raises(errors.NotSendable, match=r"'c' of service\.add"):
    client.add(1, c=threading.Lock())
  with pytest.raises(errors.NotSendable, match=r"'value' of service\.echo"):
    call_async(client.echo, threading.Lock())


def test_unsendable_result(client: Any) -> None:
  with pytest.raises(errors.NotSendable, match=r'result of service\.generator'):
    client.generator()
  assert client.ping() == 'pong'


def test_unknown_method_of_a_server_not_yet_known(server: courier.Server) -> None:
  client: Any = courier.connect(server.address, SECRET, peer='service')
  future = call_async(client.nothing)
  assert isinstance(future.exception(10), errors.NoSuchMethod)
  courier.close(client)


def test_unknown_methods_are_refused_with_a_hint(client: Any) -> None:
  with pytest.raises(errors.NoSuchMethod, match=r"did you mean 'ping'.*add, apply"):
    client.pings()
  for name in ('run', 'close', 'limit', 'trap', 'gate'):
    with pytest.raises(errors.NoSuchMethod):
      getattr(client, name)()
  assert not hasattr(client, 'nothing')
  with pytest.raises(AttributeError):
    client._private()
  assert 'ping' in dir(client) and 'run' not in dir(client)


def test_deadline_covers_the_call(client: Any) -> None:
  client.ping()
  begun = time.monotonic()
  with pytest.raises(errors.DeadlineExceeded, match=r'service\.sleep .* by .service.'):
    with_deadline(client.sleep, 0.2)(1.0)
  assert time.monotonic() - begun > 0.19
  assert client.ping() == 'pong'
  with pytest.raises(TimeoutError):
    with_deadline(client.echo, 0.0)(np.zeros(10_000_000))
  assert client.ping() == 'pong'


def test_deadline_of_a_connection_is_not_inherited(client: Any) -> None:
  with_deadline(client.ping, 0.3)()
  client.sleep(0.5)
  with_deadline(client.sleep, None)(0.5)


def test_deadlines_can_be_suspended(client: Any) -> None:
  client.ping()
  courier.suspend_deadlines(True)
  try:
    with_deadline(client.sleep, 0.1)(0.4)
  finally:
    courier.suspend_deadlines(False)
  with pytest.raises(errors.DeadlineExceeded):
    with_deadline(client.sleep, 0.1)(0.4)


def test_calls_before_serve_wait(address: str, service: Service) -> None:
  server = courier.Server(address, SECRET, 'service')
  client = courier.connect(server.address, SECRET, peer='service', deadline=20.0)
  futures = [call_async(client.ping) for _ in range(5)]
  with pytest.raises(errors.Unavailable, match='does not serve yet'):
    with_deadline(client.ping, 0.2)()
  assert not any(future.done() for future in futures)
  server.serve(service)
  assert [future.result(10) for future in futures] == ['pong'] * 5
  assert service.calls == 5
  courier.close(client)
  server.close()


def test_many_outstanding_calls_and_a_ping(
  client: Any, service: Service, server: courier.Server
) -> None:
  futures = [call_async(client.wait) for _ in range(200)]
  for _ in futures:
    assert service.entered.acquire(timeout=20)
  assert server.statistics()['wait'].running == 200
  assert with_deadline(client.ping, 10.0)() == 'pong'
  service.wake()
  assert [future.result(20) for future in futures] == ['woken'] * 200
  wait_for(lambda: server.statistics()['wait'].running == 0)


def test_futures_carry_exceptions(client: Any) -> None:
  future = call_async(client.fail, Rejected(1))
  assert isinstance(future.exception(10), Rejected)
  bounded = with_deadline(client.sleep, 0.1)
  assert isinstance(call_async(bounded, 1.0).exception(10), errors.DeadlineExceeded)


def test_cancel_blocking(client: Any, service: Service) -> None:
  futures = [call_async(client.wait) for _ in range(3)]
  for _ in futures:
    assert service.entered.acquire(timeout=10)
  slow = call_async(client.sleep, 0.3)
  courier.cancel_blocking(client)
  for future in futures:
    assert isinstance(future.exception(10), errors.CallCancelled)
  with pytest.raises(errors.CallCancelled):
    client.wait()
  with pytest.raises(errors.CallCancelled):
    with_deadline(client.ping, None)()
  assert slow.result(10) is None
  assert client.ping() == 'pong'


def test_cancel_ends_the_wait_for_a_peer_that_is_not_there(tmp_path: Path) -> None:
  client = courier.connect(f'unix:{tmp_path}/none', SECRET, peer='nobody')
  future = call_async(client.ping)
  time.sleep(0.1)
  courier.cancel_blocking(client)
  assert isinstance(future.exception(5), errors.CallCancelled)
  with pytest.raises(errors.CallCancelled):
    client.ping()
  courier.close(client)


def test_closed_client_refuses(client: Any) -> None:
  future = call_async(client.sleep, 1.0)
  time.sleep(0.1)
  courier.close(client)
  assert isinstance(future.exception(5), errors.CallCancelled)
  with pytest.raises(errors.CallCancelled):
    client.ping()


def test_statistics_on_both_sides(client: Any, server: courier.Server) -> None:
  for _ in range(700):
    client.ping()
  client.sleep(0.02)
  with pytest.raises(Rejected):
    client.fail(Rejected(1))
  client.echo(np.zeros(100_000))
  # The server counts a call when its answer is on the way.
  wait_for(lambda: not any(s.running for s in server.statistics().values()))
  for side in (server.statistics(), courier.statistics(client)):
    assert side['ping'].calls == 700 and side['ping'].errors == 0
    assert side['fail'].calls == side['fail'].errors == 1
    assert side['ping'].running == 0
    assert side['sleep'].latency_mean >= 0.02 > side['ping'].latency_p50 > 0
    assert 0.015 < side['sleep'].latency_p50 < 1.0
    assert side['echo'].bytes_in > 800_000 and side['echo'].bytes_out > 800_000
    assert side['ping'].latency_p99 >= side['ping'].latency_p50


def test_client_names_its_peer_and_can_not_be_pickled(
  client: Any, server: courier.Server
) -> None:
  assert "'service'" in repr(client) and server.address in repr(client)
  assert 'ping' in repr(client.ping)
  for value in (client, client.ping):
    with pytest.raises(errors.NotSendable, match="client of 'service'"):
      pickle.dumps(value)
    with pytest.raises(errors.NotSendable):
      copy.copy(value)
  with pytest.raises(errors.NotSendable, match="argument 'value'"):
    client.echo(value=client)


def test_wrong_secret_is_told_at_once(server: courier.Server) -> None:
  client: Any = courier.connect(server.address, b'wrong', peer='service')
  with pytest.raises(errors.AuthError, match='same secret'):
    client.ping()
  courier.close(client)


def test_empty_secret_is_refused(tmp_path: Path) -> None:
  with pytest.raises(errors.UsageError, match='secret'):
    courier.Server(f'unix:{tmp_path}/s', b'', 'x')
  with pytest.raises(errors.UsageError, match='secret'):
    courier.connect(f'unix:{tmp_path}/s', b'', peer='x')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'address',
  ['', 'unix:', 'tcp:host', 'tcp::1', 'tcp:h:99999', 'http://x', 'unix:/' + 'x' * 120],
)
def test_unreadable_addresses(address: str) -> None:
  with pytest.raises(errors.UsageError, match=r'address|path'):
    courier.connect(address, SECRET, peer='x')


def test_taken_address_is_named(server: courier.Server) -> None:
  with pytest.raises(errors.UsageError, match=server.address):
    courier.Server(server.address, SECRET, 'second')


def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
  file = tmp_path / 'precious'
  file.write_text('kept')
  with pytest.raises(errors.UsageError, match='no socket'):
    courier.Server(f'unix:{file}', SECRET, 'x')
  assert file.read_text() == 'kept'


def test_only_the_owner_and_only_the_host(tmp_path: Path) -> None:
  server = courier.Server(f'unix:{tmp_path}/s', SECRET, 'x')
  assert stat.S_IMODE((tmp_path / 's').stat().st_mode) == 0o600
  server.close()
  server = courier.Server('tcp:127.0.0.1:0', SECRET, 'x')
  port = int(server.address.rpartition(':')[2])
  listening = [
    connection.laddr.ip
    for connection in psutil.Process().net_connections('tcp')
    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
  ]
  assert port > 0 and listening == ['127.0.0.1']
  server.close()
