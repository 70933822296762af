"""A plan for people and for programs: aligned text, JSON, Mermaid and DOT."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping

from callsheet.errors import UsageError
from callsheet.programs.dot import dot
from callsheet.programs.mermaid import mermaid
from callsheet.programs.plan import NodePlan, Plan
from callsheet.programs.resources import Always, Never, OnFailure, Resources, Restart


def describe(plan: Plan, format: str = 'text') -> str:
  """The plan in one of the formats 'text', 'json', 'mermaid' and 'dot'.

  Raises:
    UsageError: another format.
  """
  if format not in _FORMATS:
    raise UsageError(
      f'no format {format!r} for a program; there are {", ".join(map(repr, _FORMATS))}'
    )
  return _FORMATS[format](plan)


def text(plan: Plan) -> str:
  """One line for each node; a column that would be empty is left out."""
  titles = (
    'node',
    'service',
    'calls',
    'unit',
    'rank',
    'resources',
    'restart',
    'ends',
  )
  table = [_cells(node) for node in plan.nodes]
  shown = [index for index in range(len(titles)) if any(row[index] for row in table)]
  rows = [[row[index] for index in shown] for row in (titles, *table)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]
  count = len(plan.nodes)
  return '\n'.join(
    [f'program {plan.name!r}: {count} node{"s" if count > 1 else ""}', '', *lines, '']
  )


def _cells(node: NodePlan) -> tuple[str, ...]:
  return (
    node.name,
    node.service,
    ', '.join(node.callees),
    node.unit if node.unit != node.name else '',
    f'{node.spmd.rank} of {node.spmd.size}' if node.spmd else '',
    _resources(node.resources),
    _restart(node.restart),
    'program' if node.ends_program else '',
  )


def _resources(resources: Resources) -> str:
  default = Resources()
  return ' '.join(
    f'{name}={_plain(value)}'
    for name, value in _fields(resources).items()
    if value != getattr(default, name)
  )


def _plain(value: object) -> str:
  if isinstance(value, Mapping):
    return ','.join(value)
  return str(value)


def _restart(restart: Restart) -> str:
  if isinstance(restart, Never):
    return ''
  cause = 'on failure' if isinstance(restart, OnFailure) else 'always'
  limit = restart.max_restarts
  return cause if limit is None else f'{cause}, at most {limit}'


def as_json(plan: Plan) -> str:
  """The plan as JSON, two spaces deep, keys in this order.

    program: its name
    nodes: in order of declaration, each with
      name, service, unit
      calls: names of the nodes that it calls
      resources: every field of Resources; of the environment the names alone, since
        values may be secret
      restart: {policy: 'never' | 'on_failure' | 'always', max_restarts, backoff,
        forgiven_after}, the last three but for 'never'; max_restarts null for no limit,
        the others in seconds
      silence: {process, run} in seconds, null for no limit
      ends_program
      spmd: {leader, rank, size} where several processes run the node, else null
    units: the names of the nodes that share each process
    stop_order: levels of names, callers before those they call

  Keys may be added, never renamed or removed.
  """
  nodes = [
    {
      'name': node.name,
      'service': node.service,
      'unit': node.unit,
      'calls': list(node.callees),
      'resources': {
        **_fields(node.resources),
        'environment': list(node.resources.environment),
      },
      'restart': {'policy': _POLICIES[type(node.restart)], **_fields(node.restart)},
      'silence': dataclasses.asdict(node.silence),
      'ends_program': node.ends_program,
      'spmd': dataclasses.asdict(node.spmd) if node.spmd else None,
    }
    for node in plan.nodes
  ]
  whole = {
    'program': plan.name,
    'nodes': nodes,
    'units': {unit: _names(members) for unit, members in plan.units().items()},
    'stop_order': plan.stop_order(),
  }
  return json.dumps(whole, indent=2) + '\n'


def _fields(settings: Resources | Restart) -> dict[str, object]:
  fields = dataclasses.fields(settings)
  return {field.name: getattr(settings, field.name) for field in fields}


def _names(nodes: Iterable[NodePlan]) -> list[str]:
  return [node.name for node in nodes]


_POLICIES = {Never: 'never', OnFailure: 'on_failure', Always: 'always'}
_FORMATS: dict[str, Callable[[Plan], str]] = {
  'text': text,
  'json': as_json,
  'mermaid': mermaid,
  'dot': dot,
}
