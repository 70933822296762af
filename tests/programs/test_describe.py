"""A program described: exactly as people and tools see it."""

from __future__ import annotations

import json

import pytest

from callsheet.errors import GraphError, UsageError
from callsheet.programs import Always, Node, OnFailure, Program, Resources


class Counter:
  pass


class Replay:
  pass


class Actor:
  def __init__(self, counter: Counter, *others: object) -> None:
    pass


def small() -> Program:
  program = Program('small')
  counter = program.add('counter', Counter)
  secret = {'TOKEN': 'abc'}
  program.add(
    Node('replay', resources=Resources(memory_gb=8, environment=secret)), Replay
  )
  with program.group('actor', restart=OnFailure(max_restarts=3), colocate=True):
    for _ in range(2):
      program.add('actor', Actor, counter)
  program.add(Node('evaluator', restart=Always(), ends_program=True), Actor, counter)
  return program


def test_text() -> None:
  rows = [
    ('node', 'service', 'calls', 'unit', 'resources', 'restart', 'ends'),
    ('counter', 'Counter', '', '', '', '', ''),
    ('replay', 'Replay', '', '', 'memory_gb=8 environment=TOKEN', '', ''),
    ('actor/0', 'Actor', 'counter', 'actor', '', 'on failure, at most 3', ''),
    ('actor/1', 'Actor', 'counter', 'actor', '', 'on failure, at most 3', ''),
    ('evaluator', 'Actor', 'counter', '', '', 'always', 'program'),
  ]
  form = '{:9}  {:7}  {:7}  {:5}  {:29}  {:21}  {}'
  lines = [form.format(*row).rstrip() for row in rows]
  assert small().describe().splitlines() == ["program 'small': 5 nodes", '', *lines]


def test_text_leaves_out_columns_without_content() -> None:
  program = Program('p')
  program.add('counter', Counter)
  assert program.describe('text') == (
    "program 'p': 1 node\n\nnode     service\ncounter  Counter\n"
  )


def test_json() -> None:
  found = json.loads(small().describe('json'))
  assert list(found) == ['program', 'nodes', 'units', 'stop_order']
  assert found['program'] == 'small'
  assert found['nodes'][1] == {
    'name': 'replay',
    'service': 'Replay',
    'unit': 'replay',
    'calls': [],
    'resources': {
      'cpus': 1,
      'memory_gb': 8,
      'gpus': 0,
      'tpu': None,
      'tpu_topology': None,
      'hosts': 1,
      'environment': ['TOKEN'],
      'node_selector': {},
    },
    'restart': {'policy': 'never'},
    'silence': {'process': 30.0, 'run': None},
    'ends_program': False,
    'spmd': None,
  }
  assert found['nodes'][3]['calls'] == ['counter']
  assert [node['restart'] for node in found['nodes'][3:]] == [
    {
      'policy': 'on_failure',
      'max_restarts': 3,
      'backoff': 1.0,
      'forgiven_after': 600.0,
    },
    {'policy': 'always', 'max_restarts': None, 'backoff': 1.0, 'forgiven_after': 600.0},
  ]
  assert found['units']['actor'] == ['actor/0', 'actor/1']
  assert found['stop_order'] == [
    ['replay', 'actor/0', 'actor/1', 'evaluator'],
    ['counter'],
  ]


def test_no_format_shows_values_of_the_environment() -> None:
  for format in ('text', 'json', 'mermaid', 'dot'):
    assert 'abc' not in small().describe(format)


def test_mermaid() -> None:
  assert small().describe('mermaid') == (
    'flowchart LR\n'
    '  subgraph u0["actor"]\n'
    '    n2["actor/0<br/>Actor"]\n'
    '    n3["actor/1<br/>Actor"]\n'
    '  end\n'
    '  n0["counter<br/>Counter"]\n'
    '  n1["replay<br/>Replay"]\n'
    '  n4["evaluator<br/>Actor"]\n'
    '  n2 --> n0\n'
    '  n3 --> n0\n'
    '  n4 --> n0\n'
  )


def test_dot() -> None:
  assert small().describe('dot') == (
    'digraph "small" {\n'
    '  rankdir=LR;\n'
    '  node [shape=box, style=rounded, fontname="sans-serif"];\n'
    '  subgraph cluster_0 {\n'
    '    label="actor";\n'
    '    n2 [label="actor/0\\nActor"];\n'
    '    n3 [label="actor/1\\nActor"];\n'
    '  }\n'
    '  n0 [label="counter\\nCounter"];\n'
    '  n1 [label="replay\\nReplay"];\n'
    '  n4 [label="evaluator\\nActor", peripheries=2];\n'
    '  n2 -> n0;\n'
    '  n3 -> n0;\n'
    '  n4 -> n0;\n'
    '}\n'
  )


def test_dot_quotes_what_would_end_a_text() -> None:
  program = Program('p')
  program.add('x', type('a"b\\c', (), {}))
  text = program.describe('dot')
  assert 'n0 [label="x\\na\\"b\\\\c"];' in text


def actors(count: int, differ: bool = False) -> str:
  program = Program('p')
  counter = program.add('counter', Counter)
  with program.group('actor'):
    made = [program.add('actor', Actor, counter) for _ in range(count)]
  program.add('boss', Actor, counter, made[0] if differ else made)
  return program.describe('mermaid')


def test_mermaid_draws_many_alike_once() -> None:
  assert actors(8) == (
    'flowchart LR\n'
    '  n0["counter<br/>Counter"]\n'
    '  n1["actor x8<br/>Actor"]\n'
    '  n2["boss<br/>Actor"]\n'
    '  n1 --> n0\n'
    '  n2 --> n0\n'
    '  n2 --> n1\n'
  )


def test_mermaid_draws_few_or_unlike_nodes_apart() -> None:
  assert 'actor/3' in actors(4) and ' x' not in actors(4)
  unlike = actors(6, differ=True)
  assert 'actor/0' in unlike and 'actor x5' in unlike


def test_mermaid_escapes_what_would_be_markup() -> None:
  program = Program('p')
  program.add('x', lambda: Counter())
  assert 'n0["x<br/>&lt;lambda&gt;()"]' in program.describe('mermaid')


def test_an_unknown_format_lists_the_known() -> None:
  with pytest.raises(UsageError) as caught:
    small().describe('svg')
  assert str(caught.value) == (
    "no format 'svg' for a program; there are 'text', 'json', 'mermaid', 'dot'"
  )
  with pytest.raises(GraphError, match='has no nodes'):
    Program('p').describe()
