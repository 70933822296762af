"""Which units of a plan become pods of one replicated job, and what it is called."""

from __future__ import annotations

import re
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.launch.devices import unit_resources
from callsheet.programs.plan import Plan
from callsheet.programs.resources import Always, Never, OnFailure, Resources

LAUNCHER = 'launcher'
_LONGEST = 63  # characters of a DNS label
_TAIL = 6  # '-' and what a cluster appends to a pod's name


@dataclass(frozen=True)
class Group:
  """Units whose pods are alike.

  Attributes:
    name: of the replicated job.
    units: by the pod's index.
    resources: of each pod.
    backoff: how many of its pods may end badly before the job counts as failed; the
      launcher counts, too, and knows which unit it was.
    restarts: whether a pod that ended badly is started again.
    together: its pods make up one SPMD program.
  """

  name: str
  units: tuple[str, ...]
  resources: Resources
  backoff: int
  restarts: bool
  together: bool


def groups(plan: Plan, job: str) -> tuple[Group, ...]:
  """The groups of a plan's units, in order of declaration.

  Units are of one group if their names begin alike ('actor/0', 'actor/1') and they need
  the same; the processes of an SPMD program are a group of their own.

  Args:
    plan: what to run.
    job: the JobSet's name; that of a pod is longer, and has a limit.

  Raises:
    UsageError: an SPMD program that lacks processes, or no room for names.
  """
  units = plan.units()
  needs = {
    unit: unit_resources(tuple(node.resources for node in nodes))
    for unit, nodes in units.items()
  }
  lives = {
    unit: max((_restarts(node.restart) for node in nodes), default=0)
    for unit, nodes in units.items()
  }
  keyed: dict[tuple[str, Resources, bool, bool], list[str]] = {}
  for unit, resources in needs.items():
    together = resources.hosts > 1
    prefix = _leader(unit, needs) if together else unit.rpartition('/')[0] or unit
    key = (prefix, resources, lives[unit] > 0, together)
    keyed.setdefault(key, []).append(unit)
  taken = {LAUNCHER}
  made: list[Group] = []
  for (prefix, resources, restarts, together), members in keyed.items():
    if together and len(members) != resources.hosts:
      raise UsageError(
        f'node {prefix!r} declares hosts={resources.hosts} and the plan has '
        f'{len(members)} processes for it'
      )
    room = _LONGEST - len(job) - len('--0-') - len(str(len(members) - 1)) - _TAIL
    name = proper_name(prefix, room, taken)
    taken.add(name)
    backoff = sum(lives[unit] + 1 for unit in members) if restarts else 0
    made.append(
      Group(
        name,
        tuple(members),
        resources,
        min(backoff, _FOR_EVER),
        restarts,
        together,
      )
    )
  return tuple(made)


def proper_name(text: str, room: int, taken: set[str]) -> str:
  """A DNS label for a name, unlike all that are taken.

  Args:
    text: any name.
    room: characters that it may have.
    taken: names that it must not be.
  """
  plain = re.sub('[^a-z0-9]+', '-', text.lower()).strip('-') or 'node'
  # A JobSet's name is a service's as well, which begins with a letter.
  plain = plain if plain[0].isalpha() else f'n{plain}'
  name, number = plain[:room].rstrip('-'), 1
  while name in taken:
    number += 1
    end = f'-{number}'
    name = plain[: room - len(end)].rstrip('-') + end
  return name


_FOR_EVER = 2**31 - 1  # the largest count that Kubernetes takes


def _restarts(policy: Never | OnFailure | Always) -> int:
  if isinstance(policy, Never):
    return 0
  return _FOR_EVER if policy.max_restarts is None else policy.max_restarts


def _leader(unit: str, needs: dict[str, Resources]) -> str:
  """The first process of those that run the node together: 'learner' of 'learner.1'."""
  leader, _, rank = unit.rpartition('.')
  alike = leader in needs and needs[leader] == needs[unit]
  return leader if rank.isdecimal() and alike else unit
