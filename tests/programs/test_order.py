"""The order of stopping: callers before those they call, whatever the graph."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from callsheet.programs.order import stop_order

Graph = Mapping[str, tuple[str, ...]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
  names = [f'n{index}' for index in range(draw(st.integers(1, 9)))]
  some = st.lists(st.sampled_from(names), max_size=3).map(tuple)
  return {name: draw(some) for name in draw(st.permutations(names))}


def closure(graph: Graph) -> dict[str, set[str]]:
  """Whom each node calls, directly or through others, by Warshall's algorithm."""
  reach = {name: set(callees) for name, callees in graph.items()}
  for middle in graph:
    for name in graph:
      if middle in reach[name]:
        reach[name] |= reach[middle]
  return reach


@given(graphs())
def test_law(graph: Graph) -> None:
  levels = stop_order(graph)
  flat = [name for level in levels for name in level]
  assert sorted(flat) == sorted(graph) and all(levels)
  level_of = {name: index for index, level in enumerate(levels) for name in level}
  declared = {name: index for index, name in enumerate(graph)}
  reach = closure(graph)
  for name in graph:
    for other in reach[name] - {name}:
      if name not in reach[other] or declared[name] > declared[other]:
        assert level_of[name] < level_of[other]


@given(graphs())
def test_each_level_is_in_order_of_declaration(graph: Graph) -> None:
  declared = list(graph)
  for level in stop_order(graph):
    assert list(level) == sorted(level, key=declared.index)


@given(graphs())
def test_nodes_without_callers_stop_first(graph: Graph) -> None:
  called = {callee for callees in graph.values() for callee in callees}
  assert set(graph) - called <= set(stop_order(graph)[0])


def test_actor_learner() -> None:
  graph = {
    'counter': (),
    'replay': (),
    'learner': ('replay', 'counter'),
    'actor/0': ('replay', 'learner', 'counter'),
    'actor/1': ('replay', 'learner', 'counter'),
    'evaluator': ('learner', 'counter'),
  }
  assert stop_order(graph) == (
    ('actor/0', 'actor/1', 'evaluator'),
    ('learner',),
    ('counter', 'replay'),
  )


def test_a_circle_stops_after_its_callers_last_declared_first() -> None:
  graph = {'a': ('b',), 'b': ('a', 'd'), 'c': ('a',), 'd': ()}
  assert stop_order(graph) == (('c',), ('b',), ('a',), ('d',))


def test_a_node_that_calls_itself_is_no_circle() -> None:
  assert stop_order({'a': ('a', 'b'), 'b': ()}) == (('a',), ('b',))


def test_a_long_chain_is_no_deep_recursion() -> None:
  names = [f'n{index}' for index in range(1500)]
  graph = {a: (b,) for a, b in itertools.pairwise(names)} | {names[-1]: ()}
  assert stop_order(graph) == tuple((name,) for name in names)
