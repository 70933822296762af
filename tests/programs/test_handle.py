"""A handle: equal by place, travels as its name, and no stand-in for the service."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any, NamedTuple

import cloudpickle
import pytest

from callsheet.errors import NotLaunched
from callsheet.programs import Handle, Program, name_of, service_of
from callsheet.programs.handle import handles_in, replace_handles


class Counter:
  def increment(self, amount: int = 1) -> int:
    return amount


class Pair(NamedTuple):
  left: object
  right: object


def handle(name: str = 'counter', program: str = 'here') -> Any:
  return Handle(program, name, 'Counter', Counter)


def test_a_method_is_refused_in_one_line_that_shows_the_way() -> None:
  with pytest.raises(NotLaunched) as caught:
    handle().increment(3)
  assert str(caught.value) == (
    "'counter' is not running yet: its handle can only be passed to other nodes; "
    'call counter.increment inside a node, or on running.client(counter)'
  )


def test_a_name_that_is_no_variable_is_not_shown_as_one() -> None:
  with pytest.raises(NotLaunched, match=r'call handle\.increment .*client\(handle\)'):
    _ = handle('actor/0').increment


@pytest.mark.parametrize(
  'use',
  [
    lambda it: it(),
    lambda it: it[0],
    lambda it: list(it),
    lambda it: setattr(it, 'increment', 1),
    lambda it: getattr(it, 'anything'),  # noqa: B009
  ],
)
def test_every_use_of_the_service_is_refused(use: Any) -> None:
  with pytest.raises(NotLaunched, match="'counter' is not running yet"):
    use(handle())


@pytest.mark.parametrize('name', ['__len__', '__array__', '_repr_html_', 'not a name'])
def test_what_libraries_probe_for_is_simply_absent(name: str) -> None:
  assert not hasattr(handle(), name)


def test_equality_is_by_program_and_name() -> None:
  assert handle() == handle()
  assert handle() != handle('other')
  assert handle() != handle(program='there')
  assert handle() != 'counter'
  assert len({handle(), handle(), handle('other')}) == 2


def test_it_shows_its_name_and_service() -> None:
  assert repr(handle()) == "<handle 'counter': Counter>"


@pytest.mark.parametrize('library', [pickle, cloudpickle])
def test_it_travels_as_its_name(library: Any) -> None:
  sent = library.dumps(handle())
  back = library.loads(sent)
  assert isinstance(back, Handle)
  assert back == handle() and repr(back) == repr(handle())
  assert b'test_handle' not in sent
  assert service_of(back) is Any


def test_copies_are_the_handle_itself() -> None:
  it = handle()
  assert copy.copy(it) is it and copy.deepcopy([it])[0] is it
  assert not inspect.isabstract(it)


def test_its_parts_are_asked_for_from_outside() -> None:
  assert name_of(handle()) == 'counter'
  assert service_of(handle()) is Counter
  with pytest.raises(TypeError, match=r'that Program\.add returned, got a str'):
    name_of('counter')


def test_handles_are_found_and_replaced_in_nested_containers() -> None:
  a, b, c = handle('a'), handle('b'), handle('c')
  plain = [1, 2]
  value = [a, (1, {'x': b}), Pair(c, 2), plain]
  assert list(handles_in(value)) == [a, b, c]
  new = replace_handles(value, lambda found: name_of(found).upper())
  assert new == ['A', (1, {'x': 'B'}), ('C', 2), [1, 2]]
  assert type(new[2]) is Pair and new[3] is plain
  assert value[0] is a


def test_what_add_returns_is_a_handle_of_its_program() -> None:
  first, second = Program('p'), Program('p')
  assert isinstance(first.add('counter', Counter), Handle)
  assert first.forward('x', Counter) != second.forward('x', Counter)
