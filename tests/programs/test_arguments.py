"""Arguments that don't fit the constructor, or can't travel, are refused at once."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytest

from callsheet.errors import ArgumentError, EdgeError, GraphError, NotPicklable
from callsheet.programs import Node, Program


class Counter:
  def increment(self) -> int:
    return 1


class Actor:
  def __init__(
    self, agent: object, counter: Counter, /, table: str, *, seed: int, size: int = 3
  ) -> None:
    self.given = (agent, counter, table, seed, size)


class Abstract(Protocol):
  def run(self) -> None: ...


@dataclass
class Settings:
  value: object


def collect(*agents: object, counter: Counter | None = None, **rest: object) -> Counter:
  return Counter()


RIGHT = (
  'The call that would be right: '
  "program.add('x', Actor, agent, counter, table, seed=..., size=3)"
)


@pytest.fixture
def program() -> Any:
  return Program('p')


@pytest.fixture
def counter(program: Program) -> Any:
  return program.add('counter', Counter)


def refused(program: Any, *args: Any, **kwargs: Any) -> str:
  with pytest.raises(ArgumentError) as caught:
    program.add(*args, **kwargs)
  assert isinstance(caught.value, TypeError)
  return str(caught.value)


def test_a_misspelled_argument(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Actor, 1, counter, 't', seed=0, sise=4)
  assert said == (
    f"node 'x': Actor has no parameter 'sise' (did you mean 'size'?). {RIGHT}"
  )


def test_missing_arguments(program: Any) -> None:
  said = refused(program, 'x', Actor, 1)
  assert said == f"node 'x': Actor misses 'counter', 'table', 'seed'. {RIGHT}"


def test_a_misspelled_argument_is_also_missing(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Actor, 1, counter, 't', sede=0)
  assert "no parameter 'sede' (did you mean 'seed'?), misses 'seed'" in said


def test_too_many_arguments(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Actor, 1, counter, 't', 4, seed=0)
  assert 'Actor takes 3 positional arguments and is given 4' in said


def test_an_argument_given_twice(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Actor, 1, counter, 't', table='u', seed=0)
  assert "Actor is given 'table' twice" in said


def test_a_positional_argument_given_by_name(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Actor, 1, counter=counter, table='t', seed=0)
  assert "has no parameter 'counter', misses 'counter'" in said


def test_in_a_group_the_full_name_is_shown_and_the_written_one_in_the_call(
  program: Any,
) -> None:
  with program.group('actor'):
    said = refused(program, Node('actor'), Actor, 1)
  assert said.startswith("node 'actor/0': ") and "program.add('actor', Actor" in said


def test_an_instance_is_no_constructor(program: Any, counter: Any) -> None:
  said = refused(program, 'x', Counter())
  assert 'a Counter is no constructor' in said and "program.add('x', Counter, " in said
  assert "'counter' is a node already" in refused(program, 'x', counter)


def test_what_is_abstract_is_no_constructor(program: Any) -> None:
  assert 'Abstract is abstract' in refused(program, 'x', Abstract)


def test_functions_partials_and_builtins_are_constructors(
  program: Any, counter: Any
) -> None:
  program.add('f', collect, 1, 2, counter=counter, anything=3)
  program.add('p', functools.partial(Actor, 1), counter, 't', seed=0)
  program.add('d', dict, a=1)
  plan = program.plan()
  assert [node.service for node in plan.nodes[1:]] == ['Counter', 'Actor', 'dict']
  made: Any = plan.node('p').construct(str)
  assert made.given == (1, 'counter', 't', 0, 3)
  said = refused(program, 'q', functools.partial(Actor, 1), counter, sed=0)
  assert "program.add('q', Actor, counter, table, seed=..., size=3)" in said


def test_plain_values_are_left_to_the_type_checker(program: Any, counter: Any) -> None:
  program.add('x', Actor, np.zeros(3), counter, 5, seed='not a number')
  assert program.plan().node('x').kwargs == {'seed': 'not a number'}


def test_an_argument_that_cannot_travel_is_named(program: Any, counter: Any) -> None:
  with pytest.raises(NotPicklable) as caught:
    program.add('x', Actor, threading.Lock(), counter, 't', seed=0)
  assert str(caught.value) == (
    "node 'x': argument 'agent' of Actor is a lock that can't travel to its node "
    "(cannot pickle '_thread.lock' object); pass what it is made from, or a function "
    'that makes it inside the node'
  )
  with pytest.raises(NotPicklable, match=r"argument 'agents\[1\]' of collect is a Set"):
    program.add('x', collect, 1, Settings(threading.Lock()))
  with pytest.raises(NotPicklable, match="argument 'extra' of collect is a generator"):
    program.add('x', collect, extra=(i for i in range(3)))


def test_a_constructor_that_cannot_travel_is_refused(program: Any) -> None:
  lock = threading.Lock()
  with pytest.raises(NotPicklable, match='its constructor of <lambda> is a function'):
    program.add('x', lambda: Settings(lock))


def test_functions_of_all_kinds_travel(program: Any) -> None:
  size = 3
  program.add('x', lambda: Settings(size))
  made: Any = program.plan().node('x').construct(str)
  assert made.value == 3 and program.plan().node('x').service == '<lambda>()'


def test_a_handle_of_another_program(program: Any) -> None:
  other = Program('other').add('counter', Counter)
  with pytest.raises(GraphError, match="'counter' of another program") as caught:
    program.add('x', Actor, 1, other, 't', seed=0)
  assert not isinstance(caught.value, EdgeError)


def test_a_handle_that_nobody_would_replace(program: Any, counter: Any) -> None:
  hidden = [Settings(counter), {counter}, {counter: 1}, lambda: counter]
  for value in hidden:
    with pytest.raises(
      GraphError, match=r"argument 'agent' hides the handle 'counter'"
    ):
      program.add('x', Actor, value, counter, 't', seed=0)


def test_a_handle_inside_the_constructor(program: Any, counter: Any) -> None:
  for make in (lambda: Settings(counter), functools.partial(collect, counter=counter)):
    with pytest.raises(
      GraphError, match="holds the handle 'counter'; pass it as an arg"
    ):
      program.add('x', make)
