"""Our programs and services as parts of a Launchpad program that the user launches."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import cloudpickle

from callsheet.launch.launchpad.backend import require_launchpad
from callsheet.launch.launchpad.groups import labels
from callsheet.programs.plan import Plan
from callsheet.programs.program import Program
from callsheet.programs.resources import Never


def as_launchpad(program: Program | Plan, *, deadline: float | None = 60.0) -> Any:
  """The program as an `lp.Program`, for `lp.launch` on this machine.

  ```
  compiled = as_launchpad(program)
  compiled.add_node(lp.CourierNode(Mine), label='mine')
  lp.launch(compiled, launch_type='local_mp', terminal='tmux_session')
  ```

  It has a node for each unit, and one, 'supervisor', that follows them: it restarts
  them as its own children, stops them in order, and stops the Launchpad program when
  ours has ended. With the terminal 'output_to_files' Launchpad itself ends a program
  as soon as a process of its has failed, whatever the policy of its node.

  Args:
    program: a program, or the plan of one.
    deadline: seconds for a call that names none; None to wait for ever.

  Raises:
    GraphError: the program is not complete.
    UsageError: Launchpad is not installed.
  """
  require_launchpad()
  plan = program if isinstance(program, Plan) else program.plan()
  import launchpad as lp

  from callsheet.launch.launchpad.nodes import add_workers
  from callsheet.launch.launchpad.supervising import supervise

  folder = tempfile.mkdtemp(prefix='callsheet-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  path = os.path.join(folder, 'lifeline')
  compiled = lp.Program(plan.name)
  units = labels(plan)
  label = 'supervisor'
  while label in units.values():
    label = f'{label}_'
  supervisor = lp.PyNode(supervise, cloudpickle.dumps(plan), path, deadline)
  compiled.add_node(supervisor, label=label)
  restarting = {n.unit for n in plan.nodes if not isinstance(n.restart, Never)}
  add_workers(compiled, units, path, restarting)
  return compiled


def service_node(make: Callable[..., object], *args: object, **kwargs: object) -> Any:
  """A service of ours as a node of a Launchpad program, like `lp.CourierNode`.

  ```
  counter = lp_program.add_node(service_node(Counter), label='counter')
  lp_program.add_node(lp.CourierNode(Actor, counter), label='actor')
  ```

  Its handle becomes a client of ours in any node of Launchpad's, with `futures` as a
  courier client has them; arrays pass in both directions. It lives as long as its
  `run`, or until the program stops; its `close` is called.

  Args:
    make: the constructor.
    *args: its arguments; handles among them become clients.
    **kwargs: likewise.

  Raises:
    UsageError: Launchpad is not installed.
  """
  require_launchpad()
  from callsheet.launch.launchpad.services import ServiceNode

  return ServiceNode(make, *args, **kwargs)
