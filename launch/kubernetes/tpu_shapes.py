"""TPU slices as Google's Kubernetes names them, and how their chips lie on hosts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.programs.resources import Resources


@dataclass(frozen=True)
class _Type:
  label: str
  dimensions: int
  chips: tuple[int, ...]  # that a host may have
  many: int = 4  # chips of each host where there are several


# As of the TPU pages of the GKE documentation.
_TYPES = {
  'v4': _Type('tpu-v4-podslice', 3, (4,)),
  'v5e': _Type('tpu-v5-lite-podslice', 2, (1, 4, 8)),
  'v5p': _Type('tpu-v5p-slice', 3, (4,)),
  'v6e': _Type('tpu-v6e-slice', 2, (1, 4, 8)),
}


@dataclass(frozen=True)
class Slice:
  """What the pods of a slice ask for.

  Attributes:
    accelerator: the label of its hosts.
    topology: its shape.
    chips: of each host.
  """

  accelerator: str
  topology: str
  chips: int


def slice_of(node: str, resources: Resources) -> Slice | None:
  """The slice that a node asks for; None if none.

  Args:
    node: its name, for the message.
    resources: what it declares; `hosts` of them make up the slice.

  Raises:
    UsageError: there is no such slice.
  """
  if resources.tpu is None:
    return None
  if resources.tpu not in _TYPES:
    raise UsageError(
      f'node {node!r} asks for tpu={resources.tpu!r}; on Kubernetes there are '
      f'{", ".join(_TYPES)}'
    )
  kind, hosts = _TYPES[resources.tpu], resources.hosts
  example = 'x'.join(['2'] * kind.dimensions)
  if resources.tpu_topology is None:
    raise UsageError(
      f'node {node!r} asks for tpu={resources.tpu!r} and Kubernetes must know its '
      f"shape: Resources(tpu={resources.tpu!r}, tpu_topology='{example}')"
    )
  sides = [int(side) for side in resources.tpu_topology.split('x')]
  if len(sides) != kind.dimensions or not all(sides):
    raise UsageError(
      f'node {node!r}: tpu_topology={resources.tpu_topology!r} has {len(sides)} '
      f'dimensions, {resources.tpu} has {kind.dimensions}, such as {example!r}'
    )
  chips = math.prod(sides)
  allowed = (kind.many,) if hosts > 1 else kind.chips
  if chips % hosts or chips // hosts not in allowed:
    fitting = [str(chips // per) for per in kind.chips if _fits(kind, chips, per)]
    right = f'hosts={" or ".join(fitting)}' if fitting else 'another shape'
    raise UsageError(
      f'node {node!r}: tpu_topology={resources.tpu_topology!r} has {chips} chips and '
      f'the node has hosts={hosts}; a host of {resources.tpu} has '
      f'{" or ".join(map(str, kind.chips))}: it takes {right}'
    )
  return Slice(kind.label, resources.tpu_topology, chips // hosts)


def _fits(kind: _Type, chips: int, per: int) -> bool:
  return chips % per == 0 and (chips == per or per == kind.many)
