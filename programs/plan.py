"""A program as declared and checked: all that a backend sees of it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from callsheet.errors import GraphError
from callsheet.programs.handle import name_of, replace_handles
from callsheet.programs.order import stop_order
from callsheet.programs.resources import Resources, Restart
from callsheet.programs.silence import Silence


@dataclass(frozen=True)
class Spmd:
  """One process's place among those that run one node together.

  Attributes:
    leader: the node of rank 0, the one that others hold a handle of.
    rank: 0 to `size - 1`.
    size: the processes, `Resources.hosts`.
  """

  leader: str
  rank: int
  size: int


@dataclass(frozen=True)
class NodePlan:
  """One node.

  Attributes:
    name: unique in the program; a group's name and '/' come first.
    unit: nodes of one unit share a process; the node's own name if it has its own.
    make: the constructor of the service.
    args: its positional arguments; handles may be nested in lists, tuples and dicts.
    kwargs: its keyword arguments, likewise.
    service: the service's type, readable.
    callees: the nodes whose handles are among the arguments, each once.
    resources: what it needs.
    restart: what happens when it ends.
    ends_program: whether the program ends well when its run() returns.
    spmd: its place in the group that runs it; None if it has one process.
    grace: seconds that it has to end when the program stops, if they are more than all
      have.
    silence: after how long without a word it counts as hung.
  """

  name: str
  unit: str
  make: Callable[..., object]
  args: tuple[object, ...]
  kwargs: Mapping[str, object]
  service: str
  callees: tuple[str, ...]
  resources: Resources
  restart: Restart
  ends_program: bool
  spmd: Spmd | None = None
  grace: float = 0.0
  silence: Silence = field(default_factory=Silence)

  def construct(self, resolve: Callable[[str], object]) -> object:
    """Builds the service.

    Args:
      resolve: gives the client (or the service itself) of a node by its name; called
        once for each of the callees.
    """
    clients = {callee: resolve(callee) for callee in self.callees}

    def put(value: object) -> object:
      return replace_handles(value, lambda handle: clients[name_of(handle)])

    kwargs = {name: put(value) for name, value in self.kwargs.items()}
    return self.make(*(put(value) for value in self.args), **kwargs)

  def processes(self) -> tuple[NodePlan, ...]:
    """The node once for each of its hosts: 'learner', 'learner.1', 'learner.2', ...

    The first keeps the name and leads; nobody calls the others, nor do they end the
    program.
    """
    size = self.resources.hosts
    if size == 1:
      return (self,)
    names = [self.name, *(f'{self.name}.{rank}' for rank in range(1, size))]
    return tuple(
      dataclasses.replace(
        self,
        name=name,
        unit=name,
        ends_program=self.ends_program and rank == 0,
        spmd=Spmd(self.name, rank, size),
      )
      for rank, name in enumerate(names)
    )


def concludes(node: NodePlan) -> bool:
  """Whether the node's service wants to be told how the program ends: `Concluding`."""
  leads = node.spmd is None or node.spmd.rank == 0
  return leads and callable(getattr(node.make, 'conclude', None))


@dataclass(frozen=True)
class Plan:
  """A whole program: its name and its nodes in order of declaration."""

  name: str
  nodes: tuple[NodePlan, ...]

  def node(self, name: str) -> NodePlan:
    """The node of this name.

    Raises:
      GraphError: there is none.
    """
    for node in self.nodes:
      if node.name == name:
        return node
    names = [node.name for node in self.nodes]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean {near[0]!r}?' if near else f'it has {", ".join(names)}'
    raise GraphError(f'program {self.name!r} has no node {name!r}; {hint}')

  def units(self) -> dict[str, tuple[NodePlan, ...]]:
    """The nodes of each unit, both in order of declaration."""
    units: dict[str, tuple[NodePlan, ...]] = {}
    for node in self.nodes:
      units[node.unit] = (*units.get(node.unit, ()), node)
    return units

  def companies(self) -> tuple[tuple[str, ...], ...]:
    """The units that live and die together: those of one SPMD group, or one alone."""
    companies: dict[str, list[str]] = {}
    for unit, nodes in self.units().items():
      spmd = nodes[0].spmd
      companies.setdefault(spmd.leader if spmd else unit, []).append(unit)
    return tuple(map(tuple, companies.values()))

  def stop_order(self) -> tuple[tuple[str, ...], ...]:
    """Levels of nodes, callers before those they call; see `order.stop_order`.

    The processes of one node stop together.
    """
    together: dict[str, list[str]] = {}
    for node in self.nodes:
      together.setdefault(node.spmd.leader if node.spmd else node.name, []).append(
        node.name
      )
    levels = stop_order(
      {node.name: node.callees for node in self.nodes if node.name in together}
    )
    return tuple(
      tuple(name for leader in level for name in together[leader]) for level in levels
    )
