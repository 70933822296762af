"""In which order a program's nodes stop."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from itertools import zip_longest


def stop_order(callees: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], ...]:
  """Levels of nodes; those of one level may stop together, and before the next.

  A caller always stops before a node that it calls, except where the two call each
  other, directly or around a circle: such a circle stops node by node, the one declared
  last first, once everybody outside who calls it has stopped.

  Args:
    callees: for each node, in order of declaration, the nodes that it calls.
  """
  position = {name: index for index, name in enumerate(callees)}
  reach = {name: _reach(name, callees) for name in callees}
  circle = {
    name: tuple(
      sorted(
        {name, *(other for other in reach[name] if name in reach[other])},
        key=position.__getitem__,
        reverse=True,
      )
    )
    for name in callees
  }
  sorter: graphlib.TopologicalSorter[tuple[str, ...]] = graphlib.TopologicalSorter()
  for name in callees:
    sorter.add(circle[name])
    for callee in callees[name]:
      if circle[callee] != circle[name]:
        sorter.add(circle[callee], circle[name])
  sorter.prepare()
  levels: list[tuple[str, ...]] = []
  while sorter.is_active():
    ready = sorter.get_ready()
    for rank in zip_longest(*ready):
      present = [name for name in rank if name is not None]
      levels.append(tuple(sorted(present, key=position.__getitem__)))
    sorter.done(*ready)
  return tuple(levels)


def _reach(start: str, callees: Mapping[str, Iterable[str]]) -> set[str]:
  reached: set[str] = set()
  frontier = [start]
  while frontier:
    for callee in callees[frontier.pop()]:
      if callee not in reached:
        reached.add(callee)
        frontier.append(callee)
  return reached
