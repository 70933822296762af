"""The graph while it is declared."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

from callsheet.errors import GraphError, NameTaken
from callsheet.programs import check, signatures
from callsheet.programs.describe import describe
from callsheet.programs.handle import Handle, handles_in, name_of, replace_handles
from callsheet.programs.plan import NodePlan, Plan
from callsheet.programs.resources import Never, Resources, Restart
from callsheet.programs.silence import Silence

P = ParamSpec('P')
S = TypeVar('S')


@dataclass(frozen=True)
class Node:
  """A node's name, with what it needs; what is left out comes from its group.

  Attributes:
    name: letters, digits, '_', '.' and '-'.
    resources: what it needs; one core by default.
    restart: what happens when it ends; Never() by default.
    ends_program: the program ends well when this node's run() returns.
    grace: seconds that it has to end by itself when the program stops, where they are
      more than all others have.
    silence: after how long without a word it counts as hung; Silence() by default.
  """

  name: str
  resources: Resources | None = field(default=None, kw_only=True)
  restart: Restart | None = field(default=None, kw_only=True)
  ends_program: bool = field(default=False, kw_only=True)
  grace: float = field(default=0.0, kw_only=True)
  silence: Silence | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class _Group:
  path: str = ''
  own: str = ''
  resources: Resources | None = None
  restart: Restart | None = None
  silence: Silence | None = None
  unit: str | None = None

  def full(self, name: str) -> str:
    return f'{self.path}/{name}' if self.path else name


class Program:
  """Which nodes there are, and which calls which.

  program = Program('dqn')
  counter = program.add('counter', Counter)
  learner = program.add('learner', Learner, agent, counter)
  plan = program.plan()
  """

  def __init__(self, name: str) -> None:
    """Raises GraphError where the name isn't of letters, digits, '_', '.' and '-'."""
    self.name = _proper(name, 'program')
    self._identity = uuid.uuid4().hex
    self._nodes: dict[str, NodePlan] = {}
    self._handles: dict[str, Handle] = {}
    self._group = _Group()
    self._shared: set[str] = set()

  def __repr__(self) -> str:
    return f'<program {self.name!r}: {len(self._nodes)} nodes>'

  def add(
    self, name: str | Node, make: Callable[P, S], /, *args: P.args, **kwargs: P.kwargs
  ) -> S:
    """Declares a node, as if calling its constructor.

    Args:
      name: of the node, or a Node that also says what it needs. In a group it becomes
        'group/name'; a name equal to the group's is numbered: 'actor/0', 'actor/1'.
      make: the service's class, or an annotated function that returns one.
      *args: its arguments; a handle of another node stands for that node's service.
      **kwargs: likewise.

    Returns:
      A handle to pass to other nodes, typed as the service.

    Raises:
      NameTaken: the program has a node of this name.
      ArgumentError: the arguments don't fit the constructor.
      EdgeError: a handle of the wrong service.
      NotPicklable: an argument that can't travel.
      GraphError: an improper name, or a handle of another program.
    """
    node = name if isinstance(name, Node) else Node(name)
    full = self._full(node.name)
    if full in self._nodes:
      raise NameTaken(self._taken(full, node.name))
    if full in self._shared:
      raise NameTaken(
        f'{full!r} is a group whose nodes share a process: give the node another name'
      )
    site = check.Site(full, node.name, make, args, kwargs)
    check.arguments(site)
    service = signatures.made_by(make)
    check.edges(site, self._identity, tuple(self._handles.values()))
    check.travels(site)
    if full in self._handles:
      check.fulfils(site, service, self._handles[full])
    handle = Handle(self._identity, full, signatures.label(service, make), service)
    callees = {name_of(found): None for found in handles_in((args, kwargs))}
    group = self._group
    declared = NodePlan(
      name=full,
      unit=group.unit or full,
      make=make,
      args=replace_handles(args, lambda found: found),
      kwargs=replace_handles(dict(kwargs), lambda found: found),
      service=signatures.label(service, make),
      callees=tuple(callees),
      resources=node.resources or group.resources or Resources(),
      restart=node.restart or group.restart or Never(),
      ends_program=node.ends_program,
      grace=node.grace,
      silence=node.silence or group.silence or Silence(),
    )
    self._nodes.update(self._processes(declared))
    self._handles[full] = handle
    return cast(S, handle)

  def forward(self, name: str, service: type[S]) -> S:
    """A handle of a node that is added later, for graphs with circles.

    Args:
      name: as `add` will be given it, in the same group.
      service: the class or Protocol that the node will fit.

    Raises:
      NameTaken: the name is added or forwarded already.
      GraphError: an improper name.
    """
    full = self._full(name)
    if full in self._handles or full in self._nodes:
      raise NameTaken(self._taken(full, name))
    handle = Handle(self._identity, full, signatures.label(service), service)
    self._handles[full] = handle
    return cast(S, handle)

  @contextlib.contextmanager
  def group(
    self,
    name: str,
    *,
    restart: Restart | None = None,
    resources: Resources | None = None,
    silence: Silence | None = None,
    colocate: bool = False,
  ) -> Iterator[None]:
    """Names and defaults for the nodes added in its block; groups may be nested.

    Args:
      name: comes before the nodes' own names, with '/'.
      restart: for nodes that say nothing else.
      resources: for each of the nodes that say nothing else.
      silence: for nodes that say nothing else.
      colocate: all nodes of the group share one process, as threads.
    """
    outer = self._group
    path = outer.full(_proper(name, 'group'))
    unit = outer.unit or (path if colocate else None)
    if unit == path:
      if path in self._handles:
        raise NameTaken(
          f'{path!r} is a node: a group whose nodes share a process needs another name'
        )
      self._shared.add(path)
    self._group = _Group(
      path,
      name,
      resources or outer.resources,
      restart or outer.restart,
      silence or outer.silence,
      unit,
    )
    try:
      yield
    finally:
      self._group = outer

  def plan(self) -> Plan:
    """The program as it stands, frozen: what a backend launches.

    Raises:
      GraphError: there are no nodes, or a forwarded one was never added.
    """
    missing = [
      f'program.add({name!r}, ...)' for name in self._handles if name not in self._nodes
    ]
    if missing:
      raise GraphError(
        f'program {self.name!r} has forwards that were never added: '
        f'{", ".join(missing)}'
      )
    if not self._nodes:
      raise GraphError(
        f"program {self.name!r} has no nodes: program.add('counter', Counter)"
      )
    return Plan(self.name, tuple(self._nodes.values()))

  def describe(self, format: str = 'text') -> str:
    """The program as 'text', 'json' (see `describe.as_json`), 'mermaid' or 'dot'.

    Raises:
      UsageError: another format.
      GraphError: as for `plan`.
    """
    return describe(self.plan(), format)

  def _full(self, name: str) -> str:
    group = self._group
    if _proper(name, 'node') != group.own:
      return group.full(name)
    index = 0
    while group.full(str(index)) in self._nodes:
      index += 1
    return group.full(str(index))

  def _processes(self, node: NodePlan) -> dict[str, NodePlan]:
    """The node by name, with those that its further hosts run."""
    hosts = node.resources.hosts
    if hosts > 1 and node.unit != node.name:
      raise GraphError(
        f'node {node.name!r}: Resources(hosts={hosts}) is {hosts} processes, but the '
        f'nodes of {node.unit!r} share one; add it outside of that group, or take '
        'hosts=1'
      )
    processes = {each.name: each for each in node.processes()}
    for name in processes:
      if name != node.name and (name in self._nodes or name in self._handles):
        raise NameTaken(
          f'node {node.name!r}: Resources(hosts={hosts}) names its other processes '
          f'{node.name!r} with .1 and so on behind it, and {name!r} is there already; '
          'give one of the two another name'
        )
    return processes

  def _taken(self, full: str, name: str) -> str:
    if full not in self._nodes:
      return f'{full!r} is forwarded already: pass the handle that it gave'
    return (
      f'program {self.name!r} has a node {full!r} already, a '
      f'{self._nodes[full].service}; give this one another name, or number them: '
      f'with program.group({name!r}): program.add({name!r}, ...)'
    )


def _proper(name: object, what: str) -> str:
  if isinstance(name, str) and re.fullmatch(r'[A-Za-z0-9_][A-Za-z0-9_.-]*', name):
    return name
  hint = (
    "; '/' comes from program.group(...)"
    if isinstance(name, str) and '/' in name
    else ''
  )
  raise GraphError(
    f"{name!r} can't name a {what}: use letters, digits, '_', '.' and '-', "
    f"such as 'learner'{hint}"
  )
