"""Our workers as nodes of a Launchpad program. Imports Launchpad, and so TensorFlow."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import launchpad as lp
from launchpad.launch.local_multi_processing.commands import Command
from launchpad.nodes.base import Handle, Node

from callsheet.errors import UsageError
from callsheet.launch.launchpad.entry import in_thread

_ENTRY = 'callsheet.launch.launchpad.entry'
_PROCESSES = (lp.LaunchType.LOCAL_MULTI_PROCESSING, lp.LaunchType.TEST_MULTI_PROCESSING)
_THREADS = (lp.LaunchType.LOCAL_MULTI_THREADING, lp.LaunchType.TEST_MULTI_THREADING)


class NoHandle(Handle):  # type: ignore[misc]
  """Of a node that Launchpad's nodes don't call."""

  def dereference(self) -> None:
    """Raises UsageError."""
    raise UsageError(
      "a worker has no client for Launchpad's nodes: service_node(Counter) has one"
    )


class WorkerNode(Node):  # type: ignore[misc]
  """The worker of one unit.

  Args:
    unit: its name.
    lifeline: path of the socket where it gets its ticket.
    restarts: whether a node of it has a restart policy.
  """

  def __init__(self, unit: str, lifeline: str, restarts: bool = False) -> None:
    super().__init__()
    self.unit, self.lifeline, self.restarts = unit, lifeline, restarts

  def create_handle(self) -> NoHandle:
    """See Launchpad's `Node`."""
    return self._track_handle(NoHandle())  # type: ignore[no-any-return]

  @staticmethod
  def to_executables(nodes: Sequence[WorkerNode], label: str, context: Any) -> Any:
    """Commands of their own: Launchpad's would import TensorFlow in each process."""
    if context.launch_type in _THREADS:
      for node in nodes:
        if node.restarts:
          raise UsageError(
            f'{node.unit!r} has a restart policy, and a thread of Launchpad can not be '
            "restarted: take launch_type='local_mp', or restart=Never()"
          )
      return [functools.partial(in_thread, n.lifeline, n.unit) for n in nodes]
    if context.launch_type not in _PROCESSES:
      raise UsageError(f'workers of ours do not run as {context.launch_type.value!r}')
    configured = getattr(context.launch_config, 'env', {})
    environment = {
      **configured,
      'PYTHONPATH': os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
      'PYTHONUNBUFFERED': '1',
    }
    command = [sys.executable, '-m', _ENTRY]
    return [
      Command([*command, node.lifeline, node.unit], environment, node.unit)
      for node in nodes
    ]


def add_workers(
  program: Any,
  units: Mapping[str, str],
  lifeline: str,
  restarting: Collection[str] = (),
) -> None:
  """Puts workers into a Launchpad program.

  Args:
    program: the `lp.Program`.
    units: the label, Launchpad's group, of each unit.
    lifeline: path of the socket where they get their tickets.
    restarting: units with restart policies.
  """
  for unit, label in units.items():
    node = WorkerNode(unit, lifeline, unit in restarting)
    program.add_node(node, label=label)
