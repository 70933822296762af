"""Which of this machine's accelerators each unit sees."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.programs.plan import Plan

GPUS, CHIPS = 'CUDA_VISIBLE_DEVICES', 'TPU_VISIBLE_CHIPS'


def gpus_here(environment: Mapping[str, str]) -> list[str]:
  """The GPUs that this process may use: those it was given, or all of the driver's."""
  if GPUS in environment:
    return [gpu for gpu in environment[GPUS].split(',') if gpu not in ('', '-1')]
  return [str(i) for i in range(len(glob.glob('/proc/driver/nvidia/gpus/*')))]


def chips_here(environment: Mapping[str, str]) -> list[str]:
  """The TPU chips that this process may use."""
  if CHIPS in environment:
    return [chip for chip in environment[CHIPS].split(',') if chip]
  devices = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  return [str(i) for i in range(len(devices))]


def allot(plan: Plan, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
  """Deals out this machine's accelerators, each to one unit alone.

  A TPU without a topology means one chip.

  Returns:
    The variables for each unit that declares accelerators.

  Raises:
    UsageError: there are fewer than the plan needs.
  """
  left = {GPUS: gpus_here(environment), CHIPS: chips_here(environment)}
  there = {name: len(devices) for name, devices in left.items()}
  needs: dict[str, dict[str, int]] = {GPUS: {}, CHIPS: {}}
  for unit, nodes in plan.units().items():
    resources = unit_resources(tuple(node.resources for node in nodes))
    # What the node's own environment says is not ours to change.
    if resources.gpus and GPUS not in resources.environment:
      needs[GPUS][unit] = resources.gpus
    if resources.tpu and CHIPS not in resources.environment:
      shape = (resources.tpu_topology or '1').split('x')
      needs[CHIPS][unit] = math.prod(map(int, shape))
  given: dict[str, dict[str, str]] = {}
  for name, kind in ((GPUS, 'GPUs'), (CHIPS, 'TPU chips')):
    if sum(needs[name].values()) > there[name]:
      asked = ', '.join(f'{unit} {count}' for unit, count in needs[name].items())
      raise UsageError(
        f'program {plan.name!r} needs {sum(needs[name].values())} {kind} ({asked}), '
        f'this machine has {there[name]}: declare fewer in Resources, or launch it '
        'where there are more'
      )
    for unit, count in needs[name].items():
      mine, left[name] = left[name][:count], left[name][count:]
      given.setdefault(unit, {})[name] = ','.join(mine)
  return given
