"""Results that are made where they are sent from: uncopied, and never mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from callsheet import results
from callsheet.launch import courier
from callsheet.launch.courier import segments
from tests.launch.conftest import wait_for
from tests.launch.courier_services import SECRET

pytestmark = pytest.mark.timeout(60)
SIZE = results.SMALLEST
BYTE = np.dtype(np.uint8)


def make(value: int, size: int = SIZE) -> dict[str, NDArray[Any]]:
  shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
    'a': ((2, size // 2), BYTE),
    'few': ((3,), BYTE),
    'b': ((size // 4,), np.dtype(np.float32)),
  }
  made = results.empty(shapes)
  for offset, array in enumerate(made.values()):
    array[...] = value + offset
  return made


class Maker:
  def whole(self, value: int, size: int = SIZE) -> dict[str, NDArray[Any]]:
    return make(value, size)

  def with_more_behind(self, value: int) -> tuple[dict[str, NDArray[Any]], Any]:
    return make(value), np.full(5000, value, np.uint8)

  def with_much_behind(self, value: int) -> tuple[dict[str, NDArray[Any]], Any]:
    return make(value), np.full(SIZE, value, np.uint8)

  def a_part(self, value: int) -> NDArray[Any]:
    return make(value)['a'][0]

  def the_last(self, value: int) -> NDArray[Any]:
    return make(value)['b']

  def turned_round(self, value: int) -> dict[str, NDArray[Any]]:
    return dict(reversed(make(value).items()))

  def twice(self, value: int) -> tuple[dict[str, NDArray[Any]], Any]:
    return make(value), make(value + 10)

  def none(self, value: int) -> int:
    make(value)
    return value

  def broken(self, value: int) -> None:
    make(value)
    raise KeyError(value)


@pytest.fixture(params=['unix', 'tcp'])
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
  address = f'unix:{tmp_path}/s' if request.param == 'unix' else 'tcp:127.0.0.1:0'
  server = courier.Server(address, SECRET, 'maker')
  server.serve(Maker())
  client = courier.connect(server.address, SECRET, peer='maker', deadline=20.0)
  yield client
  courier.close(client)
  server.close()


def check(made: dict[str, NDArray[Any]], value: int, size: int = SIZE) -> None:
  assert made['a'].shape == (2, size // 2) and made['b'].dtype == np.float32
  for offset, name in enumerate(('a', 'few', 'b')):
    assert (made[name] == value + offset).all()
    made[name][...] = 77  # they are the caller's own


def test_whatever_a_handler_makes_of_them_arrives(maker: Any) -> None:
  for value in range(1, 12):
    check(maker.whole(value), value)
    made, behind = maker.with_more_behind(value)
    check(made, value)
    assert (np.asarray(behind) == value).all()
    made, behind = maker.with_much_behind(value)
    check(made, value)
    assert (behind == value).all()
    assert (maker.a_part(value) == value).all()
    assert (maker.the_last(value) == value + 2).all()
    check(maker.turned_round(value), value)
    one, other = maker.twice(value)
    check(one, value)
    check(other, value + 10)
    assert maker.none(value) == value
    with pytest.raises(KeyError):
      maker.broken(value)


def test_what_is_held_stays_as_it_is(maker: Any) -> None:
  held = [maker.whole(value, SIZE * (1 + value % 3)) for value in range(1, 13)]
  for value, made in enumerate(held, 1):
    check(made, value, SIZE * (1 + value % 3))


def test_on_one_host_nothing_is_copied(
  monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
  copied: list[int] = []
  copy = segments._copy

  def counting(target: memoryview, source: memoryview) -> None:
    copied.append(source.nbytes)
    copy(target, source)

  monkeypatch.setattr(segments, '_copy', counting)
  before = segments._bytes
  server = courier.Server(f'unix:{tmp_path}/s', SECRET, 'maker')
  server.serve(Maker())
  client = courier.connect(server.address, SECRET, peer='maker', deadline=20.0)
  try:
    for value in range(20):
      check(client.whole(value), value)
    assert copied == []
    # Used again and again, whether they were sent or not.
    for value in range(20):
      client.none(value)
    assert segments._bytes - before <= segments.size_class(3 * SIZE)
    made, behind = client.with_more_behind(3)
    assert copied == [5000]
    check(made, 3)
    assert (np.asarray(behind) == 3).all()
  finally:
    courier.close(client)
    server.close()
  wait_for(lambda: segments._bytes == before)


def test_without_a_courier_they_are_plain_arrays() -> None:
  check(make(5), 5)
  check(make(6, 400), 6, 400)
