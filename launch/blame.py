"""Of several failures the first: the one that the others died of."""

from __future__ import annotations

from collections.abc import Sequence

from callsheet.launch.events import Failure


def first_failure(failures: Sequence[Failure]) -> Failure:
  """The one to show: one that blames nobody, or whose blame leads nowhere else.

  Args:
    failures: at least one, in the order in which they were heard of.
  """
  by_node = {failure.node: failure for failure in reversed(failures)}
  failure = next((each for each in failures if not each.blames), failures[0])
  seen = set()
  while failure.blames in by_node and failure.node not in seen:
    seen.add(failure.node)
    failure = by_node[failure.blames]
  return failure
