"""Messages: every value comes back as it was, garbage never gets in."""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import pickle
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from callsheet import errors
from callsheet.buffers import Pool
from callsheet.launch import courier
from callsheet.launch.courier import address, handshake, pickling, wire
from tests.launch.courier_services import SECRET, Service

pytestmark = pytest.mark.timeout(60)


@contextlib.contextmanager
def channels() -> Iterator[tuple[wire.Channel, wire.Channel]]:
  left, right = (wire.Channel(sock) for sock in socket.socketpair())
  try:
    yield left, right
  finally:
    left.close()
    right.close()


def through(value: Any) -> Any:
  """What the other end of a connection makes of the value."""
  with channels() as (left, right):
    sender = threading.Thread(
      target=left.send, args=(wire.CALL, 7, pickling.dumps(value), None)
    )
    sender.start()
    message = right.receive(None)
    sender.join()
    assert message is not None and message[:2] == (wire.CALL, 7)
    return pickling.loads(message[2], message[3])


def assert_same(left: Any, right: Any) -> None:
  assert type(left) is type(right)
  if isinstance(left, np.ndarray):
    # numpy itself sends datetimes in native order
    assert left.dtype.newbyteorder('=') == right.dtype.newbyteorder('=')
    assert left.shape == right.shape
    assert left.flags.writeable or not right.flags.writeable
    np.testing.assert_array_equal(left, right)
  elif isinstance(left, dict):
    assert list(left) == list(right)
    for key in left:
      assert_same(left[key], right[key])
  elif isinstance(left, (list, tuple)):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
      assert_same(one, other)
  else:
    assert left == right


dtypes = st.one_of(
  hnp.scalar_dtypes(),
  hnp.byte_string_dtypes(max_len=4),
  hnp.unicode_string_dtypes(max_len=4),
  st.just(np.dtype([('x', '<f4'), ('y', '>i8', (2,))])),
  st.just(np.dtype(object)),
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
  dtype = draw(dtypes)
  shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
  if draw(st.booleans()):
    shape = (*shape, draw(st.sampled_from([500, 3000, 10_000])))
  bits = np.random.default_rng(draw(st.integers(0, 1 << 32)))
  size = int(np.prod(shape))
  if dtype.hasobject:
    array = np.empty(shape, object)
    array.fill('an object')
  elif dtype.kind in 'biu':
    array = bits.integers(0, 2, size).astype(dtype).reshape(shape)
  else:
    array = np.zeros(shape, dtype)
  if draw(st.booleans()) and not dtype.hasobject:
    array = array.astype(pickle.loads(pickle.dumps(dtype)))
  view = draw(
    st.sampled_from(['whole', 'strided', 'part', 'transposed', 'reversed', 'frozen'])
  )
  if view == 'strided' and array.ndim:
    return array[::2]
  if view == 'part' and array.ndim > 1:
    return array.T[1:, ..., ::2]
  if view == 'transposed':
    return array.T
  if view == 'reversed' and array.ndim:
    return array[..., ::-1]
  if view == 'frozen':
    array.flags.writeable = False
  return array


leaves = st.one_of(
  st.none(), st.booleans(), st.integers(), st.text(max_size=20), arrays()
)
leaves = leaves | st.binary(max_size=20) | st.floats(allow_nan=False)
values = st.recursive(
  leaves,
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4)
  ),
  max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(values)
def test_any_structure_comes_back(value: Any) -> None:
  assert_same(through(value), value)


@pytest.mark.parametrize('size', [0, 1, 4095, 4096, 32_752, 32_753, 65_536, 200_000])
@pytest.mark.parametrize('count', [1, 3, 700])
def test_sizes_at_the_edges(size: int, count: int) -> None:
  if size * count > 20_000_000:
    count = 20
  value = [np.full(size, i % 251, np.uint8) for i in range(count)]
  assert_same(through(value), value)
  assert_same(through([bytes(v) for v in value]), [bytes(v) for v in value])


def test_stacked_frames_are_sent_from_where_they_are() -> None:
  dtype = pickle.loads(pickle.dumps(np.dtype(np.uint8)))  # As a replay's specs were.
  memory = np.zeros((8, 4, 84, 84), dtype)
  [buffer] = pickling.dumps({'observation': memory.transpose(0, 2, 3, 1)})[1]
  assert np.shares_memory(np.asarray(buffer), memory)


def test_shared_and_cyclic_structures() -> None:
  array = np.arange(10_000)
  cycle: list[Any] = [array, array]
  cycle.append(cycle)
  back = through(cycle)
  assert back[0] is back[1] and back[2] is back


def test_named_tuples_and_subclasses_of_arrays() -> None:
  masked = np.ma.masked_array(np.arange(10_000), np.arange(10_000) % 2)
  back = through({'m': masked, 'c': collections.OrderedDict(a=1)})
  assert type(back['m']) is type(masked) and back['m'].sum() == masked.sum()
  assert type(back['c']) is collections.OrderedDict


def test_what_was_sent_is_let_go() -> None:
  array = np.zeros(100_000)
  references = sys.getrefcount(array)
  for _ in range(3):
    through({'a': array})
    with pytest.raises(TypeError):
      pickling.dumps((array, threading.Lock()))
  gc.collect()
  assert sys.getrefcount(array) == references


def test_a_leased_buffer_is_used_again_only_when_free() -> None:
  pool = Pool(idle_bytes=8 << 20)
  first = np.frombuffer(pool.lease(1 << 20), np.uint8)
  first[:] = 1
  part = first[100:200].reshape(10, 10)
  del first
  second = np.frombuffer(pool.lease(1 << 20), np.uint8)
  second[:] = 2
  assert (part == 1).all() and pool.idle_bytes() == 0
  del part
  assert pool.idle_bytes() >= 1 << 20
  where = second.ctypes.data
  del second
  again = {
    np.frombuffer(lease, np.uint8).ctypes.data
    for lease in [pool.lease(1 << 20), pool.lease(1 << 20)]
  }
  assert where in again and len(again) == 2


def test_the_pool_is_bounded() -> None:
  pool = Pool(idle_bytes=4 << 20)
  held = [pool.lease(1 << 20) for _ in range(10)]
  del held
  assert 0 < pool.idle_bytes() <= 4 << 20


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_recycled_buffers_never_alias(data: st.DataObject) -> None:
  pool = Pool(idle_bytes=2 << 20)
  alive: list[tuple[int, Any]] = []
  for step in range(data.draw(st.integers(1, 25))):
    if alive and data.draw(st.booleans()):
      alive.pop(data.draw(st.integers(0, len(alive) - 1)))
    size = data.draw(st.sampled_from([10, 130_000, 200_000, 500_000]))
    array = np.frombuffer(pool.lease(size), np.uint8)
    array[:] = step
    alive.append((step, array[:: data.draw(st.integers(1, 3))]))
    for written, view in alive:
      assert view[0] == written and view[-1] == written


def test_too_large_is_refused_before_it_is_sent(
  monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
  monkeypatch.setattr(wire, 'LARGEST_MESSAGE', 1_000_000)
  server = courier.Server(f'unix:{tmp_path}/s', SECRET, 'service')
  server.serve(Service())
  client: Any = courier.connect(server.address, SECRET, peer='service')
  assert client.echo(np.zeros(900_000, np.uint8)).nbytes == 900_000
  with pytest.raises(errors.NotSendable, match=r"'value'.*1,000,000"):
    client.echo(np.zeros(2_000_000, np.uint8))
  with pytest.raises(errors.NotSendable, match=r'result of service\.apply'):
    client.apply(np.zeros, 2_000_000)
  assert client.ping() == 'pong'
  courier.close(client)
  server.close()


class Bomb:
  """Unpickling it would be noticed."""

  def __init__(self, path: Path) -> None:
    self.path = path

  def __reduce__(self) -> Any:
    return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('scheme', ['unix', 'tcp'])
def test_garbage_neither_gets_in_nor_ends_the_server(
  scheme: str, tmp_path: Path
) -> None:
  place = f'unix:{tmp_path}/s' if scheme == 'unix' else 'tcp:127.0.0.1:0'
  server = courier.Server(place, SECRET, 'service')
  server.serve(Service())
  parsed = address.parse(server.address)
  bomb = pickle.dumps(Bomb(tmp_path / 'exploded'))
  chance = random.Random(3)
  hello = b'CALLSHT\x01' + bytes(32)
  frame = struct.pack('<HHIQ', wire.CALL, 0, 0, len(bomb)) + bomb
  before = [
    bomb,
    frame,
    hello + bytes(32) + frame,
    hello,
    b'',
    b'GET / HTTP/1.1\r\n\r\n',
  ]
  before += [chance.randbytes(chance.randrange(1, 300)) for _ in range(30)]
  for data in before:
    with address.dial(parsed, 10) as sock, contextlib.suppress(OSError):
      sock.sendall(data)
      sock.shutdown(socket.SHUT_WR)
      while sock.recv(4096):
        pass
  header = struct.Struct('<HHIQ').pack
  admitted = [
    header(wire.CALL, 999, 0, len(bomb)) + bomb,
    header(wire.RESULT, 0, 0, len(bomb)) + bomb,
    header(wire.CALL, 0, 0, len(bomb)) + bomb + b'more',
    header(wire.CALL, 0, 0, 1 << 60),
    header(wire.CALL, 0, 1 << 31, 10),
    header(wire.CALL, 0, 2, 1) + struct.pack('<2Q', 1 << 63, 1 << 62) + b'.',
    header(0, 0, 0, 0),
    b'\x01',
    *(chance.randbytes(chance.randrange(16, 300)) for _ in range(20)),
  ]
  for data in admitted:
    with address.dial(parsed, 10) as sock:
      handshake.greet(sock, SECRET, 1e12, 'service')
      sock.settimeout(10)
      assert sock.recv(65536)  # the welcome
      with contextlib.suppress(ConnectionError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(4096) == b''
  assert not (tmp_path / 'exploded').exists()
  client: Any = courier.connect(server.address, SECRET, peer='service')
  assert client.ping() == 'pong'
  courier.close(client)
  server.close()


def test_a_server_that_answers_garbage_is_no_danger(tmp_path: Path) -> None:
  listener, parsed = address.listen(address.parse(f'unix:{tmp_path}/s'))
  bomb = pickle.dumps(Bomb(tmp_path / 'exploded'))

  def impostor() -> None:
    for answer in (bomb + bytes(200), b'CALLSHT\x01' + bytes(64) + bomb):
      sock, _ = listener.accept()
      with sock:
        sock.recv(100)
        sock.sendall(answer)
        with contextlib.suppress(OSError):
          sock.recv(100)

  thread = threading.Thread(target=impostor)
  thread.start()
  client: Any = courier.connect(str(parsed), SECRET, peer='service', deadline=10)
  with pytest.raises(errors.AuthError, match='not a Callsheet'):
    client.ping()
  with pytest.raises(errors.AuthError, match='same secret'):
    client.ping()
  thread.join(10)
  listener.close()
  courier.close(client)
  assert not (tmp_path / 'exploded').exists()


def test_the_courier_imports_no_jax() -> None:
  code = (
    'import sys, callsheet.launch.courier.pickling as p\n'
    'import callsheet.launch.courier\n'
    'p.dumps([1, b"x"])\n'
    'print([m for m in ("jax", "dm_env") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=50
  )
  assert done.stdout.strip() == '[]'
