"""Declaring: names, groups, forwards, and the plan that comes of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle
import pytest

from callsheet.errors import EdgeError, GraphError, NameTaken
from callsheet.programs import (
  Always,
  Handle,
  Never,
  Node,
  OnFailure,
  Program,
  Resources,
)


class Counter:
  def increment(self) -> int:
    return 1


class Actor:
  def __init__(self, counter: Counter, seed: int = 0) -> None:
    self.counter, self.seed = counter, seed


class Boss:
  def __init__(self, workers: Sequence[Actor], **named: Counter) -> None:
    self.workers, self.named = workers, named


def small() -> Program:
  program = Program('small')
  counter = program.add('counter', Counter)
  with program.group('actor', restart=OnFailure(max_restarts=3)):
    for seed in range(2):
      program.add('actor', Actor, counter, seed=seed)
  return program


def names(program: Program) -> list[str]:
  return [node.name for node in program.plan().nodes]


def test_a_plan_holds_what_was_declared() -> None:
  plan = small().plan()
  assert plan.name == 'small'
  assert [node.name for node in plan.nodes] == ['counter', 'actor/0', 'actor/1']
  actor = plan.node('actor/1')
  assert (actor.make, actor.kwargs, actor.service) == (Actor, {'seed': 1}, 'Actor')
  assert actor.callees == ('counter',) and actor.unit == 'actor/1'
  assert actor.restart == OnFailure(max_restarts=3)
  assert actor.resources == Resources() and not actor.ends_program
  assert plan.node('counter').restart == Never()
  assert plan.stop_order() == (('actor/0', 'actor/1'), ('counter',))


def test_construct_puts_a_client_for_each_handle() -> None:
  program = small()
  counter = program.forward('other', Counter)
  workers = [program.add('worker', Actor, counter)]
  program.add('other', Counter)
  program.add('boss', Boss, workers, first=counter, second=counter)
  node = program.plan().node('boss')
  asked: list[str] = []

  def client(name: str) -> str:
    asked.append(name)
    return f'client of {name}'

  boss: Any = node.construct(client)
  assert boss.workers == ['client of worker']
  assert boss.named == {'first': 'client of other', 'second': 'client of other'}
  assert tuple(asked) == node.callees == ('worker', 'other')


def test_a_plan_survives_travel() -> None:
  program = small()
  program.add('boss', Boss, [program.add('lone', Actor, program.add('c', Counter))])
  plan = program.plan()
  back = cloudpickle.loads(cloudpickle.dumps(plan))
  assert back == plan
  (workers,) = back.node('boss').args
  assert isinstance(workers[0], Handle)
  assert back.node('actor/1').construct(str).seed == 1


def test_a_plan_does_not_change_later() -> None:
  program = small()
  workers = [program.add('w', Actor, program.add('c', Counter))]
  program.add('boss', Boss, workers)
  plan = program.plan()
  before = cloudpickle.dumps(plan)
  workers.append(program.add('v', Actor, program.add('d', Counter)))
  assert cloudpickle.dumps(plan) == before
  assert len(program.plan().nodes) == len(plan.nodes) + 2
  with pytest.raises(dataclasses.FrozenInstanceError):
    plan.name = 'other'  # type: ignore[misc]


def test_an_unknown_node_is_named_with_what_is_near() -> None:
  with pytest.raises(GraphError, match=r"no node 'countr'; did you mean 'counter'\?"):
    small().plan().node('countr')
  with pytest.raises(GraphError, match='it has counter, actor/0, actor/1'):
    small().plan().node('xyz')


def test_groups_name_and_number() -> None:
  program = Program('p')
  with program.group('b'):
    program.add('x', Counter)
    with program.group('a'):
      program.add('a', Counter)
      program.add('1', Counter)
      program.add('a', Counter)
      program.add('b', Counter)
    program.add('b', Counter)
  with program.group('b'):
    program.add('b', Counter)
  program.add('b', Counter)
  assert names(program) == [
    'b/x',
    'b/a/0',
    'b/a/1',
    'b/a/2',
    'b/a/b',
    'b/0',
    'b/1',
    'b',
  ]


def test_a_group_gives_defaults_that_nested_ones_and_nodes_override() -> None:
  program = Program('p')
  big, small_ = Resources(cpus=4), Resources(cpus=0.5)
  with program.group('g', restart=Always(), resources=big):
    program.add('x', Counter)
    program.add(
      Node('y', restart=Never(), resources=small_, ends_program=True), Counter
    )
    with program.group('h', resources=small_):
      program.add('z', Counter)
  program.add('after', Counter)
  found = {n.name: (n.restart, n.resources) for n in program.plan().nodes}
  assert found == {
    'g/x': (Always(), big),
    'g/y': (Never(), small_),
    'g/h/z': (Always(), small_),
    'after': (Never(), Resources()),
  }
  assert program.plan().node('g/y').ends_program


def test_a_group_ends_with_its_block_even_when_that_fails() -> None:
  program = Program('p')
  with pytest.raises(ZeroDivisionError), program.group('g'):
    _ = 1 / 0
  program.add('x', Counter)
  assert names(program) == ['x']


def test_colocated_nodes_share_a_unit() -> None:
  program = Program('p')
  program.add('alone', Counter)
  with program.group('g', colocate=True):
    program.add('x', Counter)
    with program.group('h'):
      program.add('h', Counter)
  units = program.plan().units()
  assert {unit: [n.name for n in nodes] for unit, nodes in units.items()} == {
    'alone': ['alone'],
    'g': ['g/x', 'g/h/0'],
  }


def test_a_unit_is_never_shared_by_accident() -> None:
  program = Program('p')
  program.add('x', Counter)
  with (
    pytest.raises(NameTaken, match="'x' is a node"),
    program.group('x', colocate=True),
  ):
    pass
  with program.group('g', colocate=True):
    program.add('g', Counter)
  with pytest.raises(NameTaken, match="'g' is a group whose nodes share a process"):
    program.add('g', Counter)


def test_a_name_is_taken_once() -> None:
  program = small()
  with pytest.raises(NameTaken) as caught:
    program.add('counter', Counter)
  assert str(caught.value) == (
    "program 'small' has a node 'counter' already, a Counter; give this one another "
    "name, or number them: with program.group('counter'): program.add('counter', ...)"
  )
  with pytest.raises(NameTaken, match="a node 'counter' already"):
    program.forward('counter', Counter)


@pytest.mark.parametrize(
  'name', ['', ' ', 'a b', 'a/b', '..', '.x', '-x', 'ä', 'a\n', 3]
)
def test_odd_names_are_refused(name: Any) -> None:
  program = Program('p')
  with pytest.raises(GraphError, match="can't name a node: use letters"):
    program.add(name, Counter)
  with pytest.raises(GraphError, match="can't name a node"):
    program.forward(name, Counter)
  with pytest.raises(GraphError, match="can't name a group"), program.group(name):
    pass
  with pytest.raises(GraphError, match="can't name a program"):
    Program(name)


def test_a_node_that_was_refused_leaves_no_trace() -> None:
  program = small()
  before = program.plan()
  wrong: Any = program.add('later', Actor, program.add('c', Counter))
  with program.group('actor'):
    with pytest.raises(EdgeError):
      program.add('actor', Actor, wrong)
    program.add('actor', Counter)
  assert names(program)[len(before.nodes) :] == ['c', 'later', 'actor/2']


def test_forwards_make_circles() -> None:
  program = Program('p')
  later = program.forward('b', Actor)
  program.add('a', Boss, [later])
  with program.group('g'):
    ahead = program.forward('g', Counter)
    program.add('user', Actor, ahead)
    program.add('g', Counter)
  with pytest.raises(GraphError, match=r"never added: program\.add\('b', \.\.\.\)"):
    program.plan()
  handle = program.add('b', Actor, ahead)
  assert handle == later
  assert program.plan().node('a').callees == ('b',)
  assert program.plan().node('g/user').callees == ('g/0',)


def test_a_forward_is_given_once_and_kept() -> None:
  program = Program('p')
  program.forward('b', Counter)
  with pytest.raises(NameTaken, match="'b' is forwarded already"):
    program.forward('b', Counter)
  with pytest.raises(EdgeError) as caught:
    program.add('b', Boss, [])
  assert str(caught.value) == (
    "node 'b' was forwarded as a Counter, but Boss makes a Boss; "
    "forward what is added: program.forward('b', Boss)"
  )


def test_an_empty_program_is_no_plan() -> None:
  with pytest.raises(GraphError, match=r"program 'p' has no nodes: program\.add\("):
    Program('p').plan()


def test_declaring_imports_nothing_heavy() -> None:
  heavy = ('jax', 'numpy', 'tensorflow', 'cloudpickle', 'callsheet.launch')
  code = (
    'import sys, callsheet, callsheet.programs\n'
    f'print([name for name in {heavy} if name in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True
  )
  assert done.stdout == '[]\n'
