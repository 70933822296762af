"""How a plan maps onto Launchpad's groups and Vertex AI's worker pools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.programs.plan import Plan
from callsheet.programs.resources import Resources

MOST_POOLS = 4  # Vertex AI's own limit


class Pool(NamedTuple):
  """Machines of one kind, one for each unit."""

  resources: Resources
  units: tuple[str, ...]


def labels(plan: Plan) -> dict[str, str]:
  """The Launchpad group of each unit: its own group, or itself."""
  return {unit: unit.rpartition('/')[0] or unit for unit in plan.units()}


def worker_pools(plan: Plan) -> tuple[Pool, ...]:
  """Vertex AI's worker pools: units that need the same share one.

  The first must have exactly one machine; if no kind is needed once, one machine of the
  first kind has a pool to itself.

  Raises:
    UsageError: there are more kinds than Vertex AI takes.
  """
  pools: list[Pool] = []
  for unit, nodes in plan.units().items():
    needs = unit_resources(tuple(node.resources for node in nodes))
    for index, pool in enumerate(pools):
      if pool.resources == needs and _settings(pool.resources) == _settings(needs):
        pools[index] = Pool(needs, (*pool.units, unit))
        break
    else:
      pools.append(Pool(needs, (unit,)))
  single = next((pool for pool in pools if len(pool.units) == 1), None)
  if single is not None:
    pools.remove(single)
  else:
    first = pools[0]
    single = Pool(first.resources, first.units[:1])
    pools[0] = Pool(first.resources, first.units[1:])
  pools.insert(0, single)
  if len(pools) > MOST_POOLS:
    kinds = '; '.join(
      f'{described(pool.resources)} for {", ".join(pool.units)}' for pool in pools
    )
    raise UsageError(
      f'program {plan.name!r} needs {len(pools)} worker pools, Vertex AI takes at most '
      f'{MOST_POOLS}: give more nodes the same Resources. It asks for: {kinds}'
    )
  return tuple(pools)


def described(resources: Resources) -> str:
  """What of the resources is not the default: 'cpus=2 gpus=1'."""
  default = Resources()
  parts = [
    f'{field.name}={getattr(resources, field.name)}'
    for field in dataclasses.fields(Resources)
    if field.name == 'cpus'
    or getattr(resources, field.name) != getattr(default, field.name)
  ]
  return ' '.join(parts)


def _settings(resources: Resources) -> tuple[Mapping[str, str], Mapping[str, str]]:
  return resources.environment, resources.node_selector
