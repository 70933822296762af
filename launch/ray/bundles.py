"""What each unit asks of a Ray cluster, and whether the cluster has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.programs.plan import Plan
from callsheet.programs.resources import Resources

_SHARE = 0.001  # of a resource that only marks a host; Ray counts no finer than 0.0001
_TPUS = {'v5e': 'TPU-V5LITEPOD', 'v5litepod': 'TPU-V5LITEPOD'}


@dataclass(frozen=True)
class Bundle:
  """A unit's part of the placement group; Ray gives it as a whole, on one host.

  Attributes:
    unit: whose it is.
    resources: amounts by Ray's names for them; memory in bytes.
    labels: what the host's labels must be.
  """

  unit: str
  resources: Mapping[str, float]
  labels: Mapping[str, str] = field(default_factory=dict)

  def __str__(self) -> str:
    return ', '.join(
      (amounts(self.resources), *(f'{k}={self.labels[k]}' for k in self.labels))
    )


@dataclass(frozen=True)
class Host:
  """A node of the cluster: its address, what it has in all, and its labels."""

  address: str
  resources: Mapping[str, float]
  labels: Mapping[str, str] = field(default_factory=dict)


def bundles(plan: Plan) -> tuple[Bundle, ...]:
  """A bundle for each unit, in their order.

  Raises:
    UsageError: a node asks for what Ray knows no way to give.
  """
  for node in plan.nodes:
    if node.resources.tpu and not node.resources.tpu_topology:
      raise UsageError(
        f'node {node.name!r} asks for a TPU {node.resources.tpu} of no size; Ray '
        f"counts chips: Resources(tpu={node.resources.tpu!r}, tpu_topology='2x2')"
      )
  return tuple(
    _bundle(unit, unit_resources(tuple(node.resources for node in nodes)))
    for unit, nodes in plan.units().items()
  )


def _bundle(unit: str, asked: Resources) -> Bundle:
  resources: dict[str, float] = {'CPU': max(asked.cpus, _SHARE)}
  labels = dict(asked.node_selector)
  if asked.gpus:
    resources['GPU'] = asked.gpus
  if asked.memory_gb:
    resources['memory'] = math.ceil(asked.memory_gb * 1e9)
  if asked.tpu and asked.tpu_topology:
    resources['TPU'] = math.prod(map(int, asked.tpu_topology.split('x')))
    kind = _TPUS.get(asked.tpu, f'TPU-{asked.tpu.upper()}')
    resources[f'accelerator_type:{kind}'] = _SHARE
  if resource := labels.pop('resource', None):
    resources[resource] = _SHARE
  if address := labels.pop('host', None):
    resources[f'node:{address}'] = _SHARE
  return Bundle(unit, resources, labels)


def amounts(resources: Mapping[str, float]) -> str:
  """'CPU 2, GPU 1, memory 4 GB'."""
  return ', '.join(
    f'{name} {amount / 1e9:g} GB' if name == 'memory' else f'{name} {amount:g}'
    for name, amount in resources.items()
  )


def lacking(asked: Sequence[Bundle], hosts: Sequence[Host]) -> str:
  """What these hosts can't give even if nobody else uses them; empty if nothing.

  Args:
    asked: the bundles, each for one host.
    hosts: all there are.
  """
  for bundle in asked:
    matching = [host for host in hosts if _labelled(host, bundle)]
    if not matching:
      return (
        f'{bundle.unit!r} asks for a host labelled {dict(bundle.labels)}; '
        f'none of {len(hosts)} is'
      )
    if not any(_holds(host, bundle) for host in matching):
      most = {
        name: max(host.resources.get(name, 0) for host in matching)
        for name in bundle.resources
      }
      return (
        f'{bundle.unit!r} asks for {amounts(bundle.resources)} on one host; '
        f'the most that one of {len(matching)} has: {amounts(most)}'
      )
  wanted = total([bundle.resources for bundle in asked])
  there = total([host.resources for host in hosts])
  short = {name for name in wanted if wanted[name] > there[name] + 1e-9}
  if not short:
    return ''
  return (
    f'the program asks for {amounts({n: wanted[n] for n in wanted if n in short})}; '
    f'there is {amounts({n: there[n] for n in wanted if n in short})} '
    f'on {len(hosts)} host{"s" if len(hosts) > 1 else ""}'
  )


def total(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The sum of each resource."""
  names = dict.fromkeys(name for part in parts for name in part)
  return {name: math.fsum(part.get(name, 0) for part in parts) for name in names}


def _labelled(host: Host, bundle: Bundle) -> bool:
  return all(host.labels.get(name) == value for name, value in bundle.labels.items())


def _holds(host: Host, bundle: Bundle) -> bool:
  return all(
    host.resources.get(name, 0) + 1e-9 >= amount
    for name, amount in bundle.resources.items()
  )
