"""Every unit as an actor of a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from callsheet.errors import UsageError
from callsheet.launch.ray.bundles import bundles, lacking
from callsheet.launch.ray.cluster import Cluster, import_ray
from callsheet.launch.ray.engine import RayEngine, actor_options
from callsheet.launch.remote.commands import worker_command
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.logs import Logs
from callsheet.launch.remote.routes import address_towards
from callsheet.launch.remote.ticket import carried_path
from callsheet.programs.plan import Plan

_STRATEGIES = ('PACK', 'SPREAD')


@dataclass(frozen=True)
class Ray:
  """Runs a program on a Ray cluster, from a host that belongs to it.

  Each unit is an actor in a placement group's bundle of its own; the actor starts the
  unit's process. `Resources(node_selector={'resource': 'a'})` asks for a host with some
  of the custom resource a, {'host': '10.0.0.1'} for that host, and any other key is a
  label that Ray knows of the host. A unit whose host dies is restarted, if its policy
  has it so, wherever there is room.

  Attributes:
    address: 'host:6379' of the cluster's head, 'auto' for the cluster of this host; by
      default the one that RAY_ADDRESS names, or else one of this machine alone that
      ends with the program and counts as many CPUs as the program asks for.
    namespace: of the actors' names, program/unit/life; by default one of its own.
    strategy: 'PACK' for few hosts, 'SPREAD' for many.
    autoscaling: whether the cluster may grow: what it has not is waited for.
    python: the workers' interpreter; by default that of Ray's processes over there.
    own_address: of this host as the others reach it; by default, that of the route to
      the head.
    dashboard: where jobs are submitted.
    log_directory: a file for each unit's output goes here; None for a temporary folder
      that is kept only if the program fails.
    echo: whether output goes to the terminal too, with the node's name before it.
    deadline: seconds for a call that names none; None to wait for ever.
    joining: seconds that the cluster's head may take to answer.
    placement: seconds that Ray may take to find room.
    arrival: seconds that a worker may take to sign on then.
    silence: seconds without a word after which a worker counts as lost.
  """

  address: str | None = None
  namespace: str | None = None
  strategy: str = 'PACK'
  autoscaling: bool = False
  python: str | None = None
  own_address: str | None = None
  dashboard: str = 'http://127.0.0.1:8265'
  log_directory: str | None = None
  echo: bool = True
  deadline: float | None = 60.0
  joining: float = 10.0
  placement: float = 60.0
  arrival: float = 60.0
  silence: float = 45.0
  name: str = 'ray'

  def __post_init__(self) -> None:
    if self.strategy not in _STRATEGIES:
      raise UsageError(
        f'Ray(strategy={self.strategy!r}): there are {" and ".join(_STRATEGIES)}'
      )

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`.

    Raises:
      UsageError: there is no Ray, no such cluster, or it has not what the plan needs.
    """
    asked = bundles(plan)
    cpus = sum(bundle.resources['CPU'] for bundle in asked)
    cluster = Cluster(self.address, self.namespace, cpus, self.joining)
    try:
      if not self.autoscaling and (lack := lacking(asked, cluster.hosts())):
        raise UsageError(f'the Ray cluster is too small: {lack}')
      address = self.own_address or (
        '127.0.0.1' if cluster.local else address_towards(cluster.head())
      )
      logs = Logs(self.log_directory, plan.name, say, self.echo)
      try:
        engine = RayEngine(
          plan.name, asked, self.strategy, self.placement, self.python, logs, cluster
        )
      except BaseException:
        logs.close(failed=False)
        raise
    except BaseException:
      cluster.close()
      raise
    try:
      return RemoteCrew(
        plan,
        engine,
        address,
        deadline=self.deadline,
        arrival=self.placement + self.arrival,
        silence=self.silence,
      )
    except BaseException:
      engine.close(failed=False)
      raise

  def dry_run(self, plan: Plan) -> str:
    """The placement group and its actors."""
    asked = bundles(plan)
    width = max(len(bundle.unit) for bundle in asked)
    command = worker_command(self.python or 'python', carried_path())
    where = self.address or os.environ.get('RAY_ADDRESS') or 'local, for this program'
    lines = [
      f'Ray cluster: {where}; namespace: {self.namespace or "its own"}',
      f'placement group: {self.strategy}, {len(asked)} bundles',
      *(f'  {i:3} {b.unit:{width}}  {b}' for i, b in enumerate(asked)),
      'actors, each in the bundle of its number:',
    ]
    for bundle in asked:
      options = ', '.join(f'{k}={v!r}' for k, v in actor_options(bundle).items())
      lines.append(f'  {plan.name}/{bundle.unit}/1: {options}')
    lines += [
      'each starts, and gives its ticket by standard input (the secret is in there):',
      f'  {shlex.join(command)}',
    ]
    return '\n'.join(lines)

  def submit(self, plan: Plan) -> str:
    """Hands a program to the cluster as a job, with the launcher in it.

    Args:
      plan: what to launch; `dashboard` says where.

    Returns:
      The job, and how to follow and to stop it.

    Raises:
      UsageError: Ray is not installed, or no cluster takes jobs there.
    """
    import_ray()
    from ray.job_submission import JobSubmissionClient

    # Run as a module it must not have been imported before.
    from callsheet.launch.remote import controller

    path = os.pathsep.join(carried_path())
    command = ['env', f'PYTHONPATH={path}', self.python or 'python', '-m']
    entrypoint = shlex.join([*command, controller.__name__, '.'])
    with tempfile.TemporaryDirectory(prefix='callsheet-') as folder:
      controller.submit(folder, plan, dataclasses.replace(self, address='auto'))
      try:
        job = _submit(
          JobSubmissionClient(self.dashboard), entrypoint, folder, self.placement
        )
      except (ConnectionError, RuntimeError) as error:
        said = ' '.join(str(error).split())
        raise UsageError(
          f'no Ray cluster takes jobs at {self.dashboard}: {said}'
        ) from None
    there = f'--address={self.dashboard} {job}'
    return (
      f'job {job}; follow it by: ray job logs -f {there}; '
      f'stop its nodes in order by: ray job stop {there}'
    )


def _submit(client: Any, entrypoint: str, folder: str, limit: float) -> str:
  """Submits, and again if the head's agent is not up yet: a cluster may be young."""
  until = time.monotonic() + limit
  while True:
    try:
      return str(
        client.submit_job(entrypoint=entrypoint, runtime_env={'working_dir': folder})
      )
    except RuntimeError as error:
      if 'node agent' not in str(error) or time.monotonic() > until:
        raise
