"""Edges are compared with the constructor's annotations, before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import (
  Annotated,
  Any,
  Generic,
  Literal,
  NamedTuple,
  NewType,
  Optional,
  Protocol,
  TypeVar,
  Union,
)

import pytest

from callsheet.errors import EdgeError
from callsheet.programs import Program

T = TypeVar('T')


class Counter:
  def increment(self, amount: int = 1) -> int:
    return amount


class Special(Counter):
  pass


class Replay:
  def sample(self, table: str, batch_size: int, num_batches: int = 1) -> list[float]:
    return []


class Samples(Protocol):
  def sample(self, table: str, batch_size: int) -> list[float]: ...


class Increments(Protocol):
  def increment(self, amount: int = 1) -> int: ...


class Both(Samples, Increments, Protocol):
  pass


class Box(Generic[T]):
  def get(self) -> T:
    raise KeyError


class Pair(NamedTuple):
  counter: Counter
  replay: Replay


CounterId = NewType('CounterId', Counter)
ACCEPTED: list[tuple[Any, Any]] = [
  (Counter, Counter),
  (Special, Counter),
  (Counter, Any),
  (Counter, object),
  (Counter, T),
  (Counter, Optional[Counter]),  # noqa: UP045
  (Counter, Union[str, Counter]),  # noqa: UP007
  (Counter, Counter | None),
  (Counter, Annotated[Counter, 'the first']),
  (Counter, CounterId),
  (Counter, 'Unknown'),
  (Counter, 'Unknown | None'),
  (Counter, Increments),
  (Replay, Samples),
  (Replay, Samples | Increments),
  (Box, Box[int]),
  (Box[int], Box[int]),
]
REFUSED: list[tuple[Any, Any, str]] = [
  (Replay, Counter, 'Counter'),
  (Counter, Special, 'Special'),
  (Counter, int, 'int'),
  (Counter, Optional[Replay], 'Replay | None'),  # noqa: UP045
  (Counter, Replay | None, 'Replay | None'),
  (Counter, None, 'None'),
  (Counter, Sequence[Counter], 'Sequence[Counter]'),
  (Counter, Callable[[int], int], 'Callable'),
  (Counter, Literal['a'], 'Literal'),
  (Counter, Samples, 'Samples'),
  (Counter, Both, 'Both'),
  (Counter, Annotated[Replay, 'x'], 'Replay'),
  (Counter, Box[int], 'Box[int]'),
]


def taking(annotation: Any) -> Callable[..., Replay]:
  def make(it: Any) -> Replay:
    return Replay()

  make.__annotations__['it'] = annotation
  return make


@pytest.mark.parametrize(('service', 'annotation'), ACCEPTED)
def test_accepted(service: Any, annotation: Any) -> None:
  program = Program('p')
  it: Any = program.add('it', service)
  program.add('user', taking(annotation), it)
  program.add('users', taking(list[annotation]), [it, it])
  assert program.plan().node('users').callees == ('it',)


@pytest.mark.parametrize(('service', 'annotation', 'expected'), REFUSED)
def test_refused(service: Any, annotation: Any, expected: str) -> None:
  program = Program('p')
  it: Any = program.add('it', service)
  with pytest.raises(EdgeError) as caught:
    program.add('user', taking(annotation), it)
  assert f"parameter 'it' of make expects {expected}" in str(caught.value)
  assert isinstance(caught.value, TypeError) and 'user' not in repr(program.plan())
  with pytest.raises(EdgeError):
    program.add('user', taking(dict[str, annotation]), {'a': it})


class Learner:
  def __init__(
    self,
    agent: object,
    replay: Samples,
    *counters: Counter,
    spare: Replay | None = None,
  ) -> None:
    pass


def declared() -> tuple[Any, Any, Any]:
  program = Program('p')
  counter = program.add('counter', Counter)
  return program, counter, program.add('replay', Replay)


def test_the_message() -> None:
  program, counter, replay = declared()
  with pytest.raises(EdgeError) as caught:
    program.add('learner', Learner, 1, replay, counter, replay)
  assert str(caught.value) == (
    "node 'learner': parameter 'counters[1]' of Learner expects Counter, but is given "
    "'replay', a Replay; 'counter' would fit. The call that would be right: "
    "program.add('learner', Learner, agent, replay, *counters, spare=None)"
  )


def test_a_protocol_says_what_is_lacking() -> None:
  program, counter, _ = declared()
  with pytest.raises(EdgeError) as caught:
    program.add('learner', Learner, 1, counter)
  assert (
    "expects Samples, but is given 'counter', a Counter "
    "(Counter has no method 'sample'); 'replay' would fit."
  ) in str(caught.value)


def test_without_a_fitting_node_none_is_suggested() -> None:
  program = Program('p')
  counter: Any = program.add('counter', Counter)
  with pytest.raises(EdgeError, match='no other node of this program would fit'):
    program.add('learner', Learner, 1, counter)


def test_keywords_and_rest_are_edges_too() -> None:
  def rest(**counters: Counter) -> Counter:
    return Counter()

  program, counter, replay = declared()
  program.add('fine', rest, a=counter)
  with pytest.raises(EdgeError, match="parameter 'b' of rest expects Counter"):
    program.add('wrong', rest, a=counter, b=replay)
  with pytest.raises(EdgeError, match=r"'spare' of Learner expects Replay \| None"):
    program.add('wrong', Learner, 1, replay, spare=counter)


CONTAINERS: list[tuple[Any, Callable[[Any], Any]]] = [
  (list[Counter], lambda c: [c, c]),
  (Sequence[Counter], lambda c: (c,)),
  (Iterable[Counter], lambda c: [c]),
  (tuple[Counter, ...], lambda c: (c, c)),
  (tuple[int, Counter], lambda c: (1, c)),
  (dict[str, Counter], lambda c: {'a': c}),
  (Mapping[str, Sequence[Counter]], lambda c: {'a': [c]}),
  (list[Counter] | None, lambda c: [c]),
  (Counter | list[Counter], lambda c: [c]),
  (list[Counter | None], lambda c: [None, c]),
  (Pair, lambda c: Pair(c, None)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(('annotation', 'wrap'), CONTAINERS)
def test_inside_containers(annotation: Any, wrap: Callable[[Any], Any]) -> None:
  program, counter, replay = declared()
  program.add('right', taking(annotation), wrap(counter))
  assert program.plan().node('right').callees == ('counter',)
  with pytest.raises(
    EdgeError, match=r"expects Counter( \| None)?, but is given 'replay'"
  ):
    program.add('wrong', taking(annotation), wrap(replay))


@pytest.mark.parametrize('annotation', [list, dict | list, Any, 'Unknown', T, Sequence])
def test_containers_that_say_nothing_of_their_items(annotation: Any) -> None:
  program, counter, replay = declared()
  program.add('right', taking(annotation), [counter, [replay]])
  assert program.plan().node('right').callees == ('counter', 'replay')


@pytest.mark.parametrize('annotation', [Counter, Counter | None, dict[str, Counter]])
def test_a_list_where_no_list_belongs(annotation: Any) -> None:
  program, counter, _ = declared()
  with pytest.raises(EdgeError, match='it is inside a list'):
    program.add('wrong', taking(annotation), [counter])


def protocol(method: Callable[..., Any]) -> Any:
  return type('Wanted', (Protocol,), {'call': method, '__module__': __name__})


METHODS: list[tuple[Callable[..., Any], Any, bool]] = [
  (lambda self, a: 0, lambda self, a: 0, True),
  (lambda self, a: 0, lambda self, b: 0, False),
  (lambda self, a, /: 0, lambda self, b: 0, True),
  (lambda self, a: 0, lambda self, a, /: 0, False),
  (lambda self, a: 0, lambda self, a, b: 0, False),
  (lambda self, a: 0, lambda self, a, b=1: 0, True),
  (lambda self, a=1: 0, lambda self, a: 0, False),
  (lambda self, a: 0, lambda self, a=1: 0, True),
  (lambda self, a, b: 0, lambda self, a: 0, False),
  (lambda self, a, b: 0, lambda self, *args: 0, True),
  (lambda self, *, a: 0, lambda self, *, a: 0, True),
  (lambda self, *, a: 0, lambda self, a: 0, True),
  (lambda self, *, a: 0, lambda self: 0, False),
  (lambda self, *, a: 0, lambda self, **kwargs: 0, True),
  (lambda self, *, a=1: 0, lambda self, *, a: 0, False),
  (lambda self: 0, lambda self, *, a: 0, False),
  (lambda self, *args: 0, lambda self, a: 0, False),
  (lambda self, *args: 0, lambda self, *args: 0, True),
  (lambda self, *a, **k: 0, lambda self, *a, **k: 0, True),
  (lambda self, a: 0, staticmethod(lambda a: 0), True),
  (lambda self, a: 0, staticmethod(lambda: 0), False),
  (lambda self, a: 0, classmethod(lambda cls, a: 0), True),
  (lambda self, a: 0, functools.partialmethod(lambda self, a, b: 0, b=1), True),
]


@pytest.mark.parametrize(('wanted', 'given', 'fits'), METHODS)
def test_methods_of_protocols(
  wanted: Callable[..., Any], given: Any, fits: bool
) -> None:
  program = Program('p')
  service = type('Service', (), {'call': given})
  it: Any = program.add('it', service)
  user = taking(protocol(wanted))
  if fits:
    program.add('user', user, it)
    assert program.plan().node('user').callees == ('it',)
  else:
    with pytest.raises(EdgeError, match=r'Service\.call takes \(.*\), Wanted\.call \('):
      program.add('user', user, it)


def test_attributes_of_protocols() -> None:
  class Sized(Protocol):
    size: int

  class Declares:
    size: int

  program = Program('p')
  fine: Any = program.add('fine', Declares)
  bare: Any = program.add('bare', Counter)
  program.add('right', taking(Sized), fine)
  with pytest.raises(EdgeError, match="Counter has no attribute 'size'"):
    program.add('wrong', taking(Sized), bare)


class Maker:
  @classmethod
  def named(cls) -> Maker:
    return cls()

  def __call__(self) -> Counter:
    return Counter()


def unannotated():  # type: ignore[no-untyped-def]
  return Counter()


def either(flag: bool = True) -> Counter | Replay:
  return Counter()


def test_what_functions_are_said_to_make() -> None:
  program = Program('p')
  found = {
    'method': program.add('method', Maker.named),
    'instance': program.add('instance', Maker()),
    'plain': program.add('plain', unannotated),
    'union': program.add('union', either),
  }
  assert {name: str(handle) for name, handle in found.items()} == {
    'method': "<handle 'method': Maker>",
    'instance': "<handle 'instance': Counter>",
    'plain': "<handle 'plain': unannotated()>",
    'union': "<handle 'union': Counter | Replay>",
  }
  user = taking(Counter)
  program.add('a', user, found['instance'])
  program.add('b', user, found['plain'])
  for name in ('method', 'union'):
    with pytest.raises(EdgeError):
      program.add('c', user, found[name])


@dataclass
class Settings:
  counter: Counter
  replay: InitVar[Samples | None] = None


class Inherits(Learner):
  pass


class Makes:
  def __new__(cls, counter: Counter) -> Makes:
    return super().__new__(cls)


class Crate(Box[T]):
  def __init__(self, counter: Counter, first: T) -> None:
    pass


@pytest.mark.parametrize(
  ('make', 'right', 'wrong'),
  [
    (Settings, {'counter': 'counter'}, {'counter': 'replay'}),
    (Settings, {'counter': 'counter', 'replay': 'replay'}, None),
    (Settings, {'counter': 'counter'}, {'counter': 'counter', 'replay': 'counter'}),
    (Pair, {'counter': 'counter', 'replay': 'replay'}, {'counter': 'replay'}),
    (Inherits, {'agent': 'counter', 'replay': 'replay'}, {'replay': 'counter'}),
    (Makes, {'counter': 'counter'}, {'counter': 'replay'}),
    (Crate[int], {'counter': 'counter', 'first': 'replay'}, {'counter': 'replay'}),
    (functools.partial(Crate, first=1), {'counter': 'counter'}, {'counter': 'replay'}),
  ],
)
def test_constructors_of_all_kinds(
  make: Any, right: dict[str, str], wrong: dict[str, str] | None
) -> None:
  program, counter, replay = declared()
  nodes = {'counter': counter, 'replay': replay}
  program.add('right', make, **{name: nodes[it] for name, it in right.items()})
  assert set(program.plan().node('right').callees) == set(right.values())
  if wrong is not None:
    given = {**right, **wrong}
    with pytest.raises(EdgeError, match="node 'wrong': parameter"):
      program.add('wrong', make, **{name: nodes[it] for name, it in given.items()})
