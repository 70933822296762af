"""A node that several processes run: how it is planned, named and shown."""

from __future__ import annotations

import json

import pytest

from callsheet.errors import GraphError, NameTaken
from callsheet.programs import Node, NodePlan, OnFailure, Plan, Program, Resources, Spmd


class Replay:
  pass


class Learner:
  def __init__(self, replay: Replay, seed: int = 0) -> None:
    pass


class Actor:
  def __init__(self, replay: Replay, learner: Learner) -> None:
    pass


def over(hosts: int, name: str = 'learner') -> Node:
  return Node(
    name,
    resources=Resources(gpus=2, hosts=hosts),
    restart=OnFailure(3),
    ends_program=True,
  )


def small(hosts: int) -> Program:
  program = Program('small')
  replay = program.add('replay', Replay)
  learner = program.add(over(hosts), Learner, replay, seed=3)
  program.add('actor', Actor, replay, learner)
  return program


def names(plan: Plan) -> list[str]:
  return [node.name for node in plan.nodes]


def test_a_node_for_each_process() -> None:
  plan = small(3).plan()
  assert names(plan) == ['replay', 'learner', 'learner.1', 'learner.2', 'actor']
  group = plan.nodes[1:4]
  assert [node.spmd for node in group] == [
    Spmd('learner', rank, 3) for rank in range(3)
  ]
  assert [node.unit for node in group] == names(plan)[1:4]
  assert [node.ends_program for node in group] == [True, False, False]
  same = {
    (n.make, len(n.args), n.callees, n.resources, n.restart, n.service) for n in group
  }
  assert len(same) == 1 and all(node.kwargs == {'seed': 3} for node in group)
  assert plan.nodes[4].callees == ('replay', 'learner')


def test_one_host_is_a_node_as_any_other() -> None:
  plan = small(1).plan()
  assert names(plan) == ['replay', 'learner', 'actor']
  assert all(node.spmd is None for node in plan.nodes)
  assert plan.companies() == (('replay',), ('learner',), ('actor',))


def test_they_live_and_stop_together() -> None:
  plan = small(2).plan()
  assert plan.companies() == (('replay',), ('learner', 'learner.1'), ('actor',))
  assert plan.stop_order() == (('actor',), ('learner', 'learner.1'), ('replay',))


def test_in_a_group_each_has_its_own() -> None:
  program = Program('p')
  replay = program.add('replay', Replay)
  with program.group('learner', resources=Resources(hosts=2)):
    for _ in range(2):
      program.add('learner', Learner, replay)
  assert names(program.plan()) == [
    'replay',
    'learner/0',
    'learner/0.1',
    'learner/1',
    'learner/1.1',
  ]


def test_processes_of_one_node_share_none() -> None:
  program = Program('p')
  with program.group('both', colocate=True):
    replay = program.add('replay', Replay)
    with pytest.raises(GraphError) as caught:
      program.add(over(2), Learner, replay)
  assert str(caught.value) == (
    "node 'both/learner': Resources(hosts=2) is 2 processes, but the nodes of 'both' "
    'share one; add it outside of that group, or take hosts=1'
  )
  assert names(program.plan()) == ['both/replay']


def test_names_of_the_others_are_taken() -> None:
  program = small(3)
  with pytest.raises(NameTaken, match=r"'learner\.2' already"):
    program.add('learner.2', Replay)
  with pytest.raises(NameTaken, match=r"'learner\.1' already"):
    program.forward('learner.1', Learner)
  program.add('learner.3', Replay)


@pytest.mark.parametrize('forward', [False, True])
def test_names_that_the_others_would_take(forward: bool) -> None:
  program = Program('p')
  replay = program.add('replay', Replay)
  if forward:
    program.forward('learner.1', Replay)
  else:
    program.add('learner.1', Replay)
  with pytest.raises(NameTaken) as caught:
    program.add(over(2), Learner, replay)
  assert str(caught.value) == (
    "node 'learner': Resources(hosts=2) names its other processes 'learner' with .1 "
    "and so on behind it, and 'learner.1' is there already; give one of the two "
    'another name'
  )


def test_text_has_a_line_for_each() -> None:
  lines = small(2).describe().splitlines()
  assert lines[0] == "program 'small': 4 nodes"
  assert lines[2].split() == [
    'node',
    'service',
    'calls',
    'rank',
    'resources',
    'restart',
    'ends',
  ]
  shown = (
    'learner    Learner  replay           {}  gpus=2 hosts=2  on failure, at most 3'
  )
  assert lines[4] == f'{shown.format("0 of 2")}  program'
  assert lines[5] == shown.format('1 of 2').replace('learner  ', 'learner.1', 1)


def test_json_has_an_entry_for_each() -> None:
  found = json.loads(small(2).describe('json'))
  assert [node['spmd'] for node in found['nodes']] == [
    None,
    {'leader': 'learner', 'rank': 0, 'size': 2},
    {'leader': 'learner', 'rank': 1, 'size': 2},
    None,
  ]
  assert found['stop_order'] == [['actor'], ['learner', 'learner.1'], ['replay']]


def test_mermaid_has_one_box() -> None:
  assert small(4).describe('mermaid') == (
    'flowchart LR\n'
    '  n0["replay<br/>Replay"]\n'
    '  n1["learner, 4 hosts<br/>Learner"]\n'
    '  n2["actor<br/>Actor"]\n'
    '  n1 --> n0\n'
    '  n2 --> n0\n'
    '  n2 --> n1\n'
  )


def test_a_plan_can_be_made_by_hand() -> None:
  node = NodePlan(
    'a', 'a', Replay, (), {}, 'Replay', (), Resources(hosts=2), OnFailure(), False
  )
  assert node.spmd is None
  assert [each.name for each in node.processes()] == ['a', 'a.1']
