"""Every unit in a pod of one JobSet, the launcher too: a program on Kubernetes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from callsheet.errors import UsageError
from callsheet.launch.kubernetes import checks
from callsheet.launch.kubernetes.groups import LAUNCHER, groups, proper_name
from callsheet.launch.kubernetes.jobset import (
  TICKET,
  Manifest,
  desk_address,
  jobset,
  secret,
)
from callsheet.launch.kubernetes.kubectl import Kubectl, as_yaml
from callsheet.launch.kubernetes.pods import PodEngine, Pods
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.ticket import Ticket
from callsheet.programs.plan import Plan

_ROOM = 30  # characters of a JobSet's name; those of its pods are made of it


@dataclass(frozen=True)
class Kubernetes:
  """Runs a program as a JobSet, with Kueue or without.

  `submit` hands over the launcher as well, and the program goes on by itself. With an
  `address`, this process is the launcher, and the JobSet goes when it ends.

  Attributes:
    image: has callsheet and the program's own modules, in this machine's versions.
    namespace: where it runs; that of kubectl's context by default.
    job: the JobSet's name; made of the program's by default.
    queue: the local queue of Kueue that admits it.
    volume: a persistent volume claim that all pods mount, for run folders.
    volume_path: where they mount it.
    service_account: whose rights the pods have; none at all by default.
    user: the number of the user that the pods run as; None for the image's own.
    image_pull_policy: 'Always', 'IfNotPresent' or 'Never'.
    python: the interpreter in the image.
    python_path: folders in the image where the program's modules are.
    topology_key: label of the hosts that the processes of one SPMD program have to
      themselves; empty for no such wish.
    restarts: how often the whole program starts anew when the launcher is lost.
    ttl: seconds after its end that the JobSet is kept; None to keep it.
    grace: seconds that pods have to stop when the JobSet is deleted.
    port: of the launcher's desk.
    address: of this machine as the pods reach it, to launch from here.
    kubectl: the command that reaches the cluster.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a unit's pod may take to be scheduled and to sign on.
    silence: seconds without a word after which a worker counts as lost.
  """

  image: str = ''
  namespace: str | None = None
  job: str | None = None
  queue: str | None = None
  volume: str | None = None
  volume_path: str = '/runs'
  service_account: str | None = None
  user: int | None = 1000
  image_pull_policy: str | None = None
  python: str = 'python'
  python_path: tuple[str, ...] = ()
  topology_key: str = 'cloud.google.com/gke-nodepool'
  restarts: int = 0
  ttl: int | None = 86400
  grace: int = 60
  port: int = 7717
  address: str | None = None
  kubectl: tuple[str, ...] = ('kubectl',)
  deadline: float | None = 60.0
  arrival: float = 1800.0
  silence: float = 45.0
  name: str = 'kubernetes'

  def dry_run(self, plan: Plan) -> str:
    """The JobSet and its Secret as YAML; of the latter's data, the sizes.

    Raises:
      UsageError: the program can't run on Kubernetes.
    """
    manifest = self._jobset(plan, launcher=self.address is None)
    job = manifest['metadata']['name']
    content = self._content(plan, job, '') if self.address is None else {}
    left_out = ['# Left out of its data:', f'#   {TICKET}: the way to the launcher']
    for name, data in content.items():
      if name != TICKET:
        digest = hashlib.sha256(data).hexdigest()[:12]
        left_out.append(f'#   {name}: {len(data)} bytes, sha256 {digest}')
    hidden = secret(job, self.namespace, content, owner=None)
    del hidden['data']
    return f'{as_yaml(manifest, hidden)}{chr(10).join(left_out)}'

  def submit(self, plan: Plan) -> str:
    """Submits the program, its launcher included.

    Returns:
      Its name, and how to follow and to cancel it.

    Raises:
      UsageError: the program can't run there, or the cluster refuses it.
    """
    manifest = self._jobset(plan, launcher=True)
    job = manifest['metadata']['name']
    cluster = Kubectl(self.kubectl, self.namespace)
    content = self._content(plan, job, secrets.token_bytes(32).hex())
    secret(job, self.namespace, content, owner=None)  # It may be too large.
    cluster.check()
    self._create(cluster, manifest, content)
    follow = cluster.words('logs', '--follow', f'job/{job}-{LAUNCHER}-0')
    return (
      f'jobset {job}\n  to follow it: {follow}\n'
      f'  to cancel it: {cluster.words("delete", "jobset", job)}'
    )

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`.

    Raises:
      UsageError: there is no address for the pods to come to, no cluster, or the
        program can't run there.
    """
    if self.address is None:
      raise UsageError(
        'a program on Kubernetes goes on without this process: callsheet launch '
        '--backend=kubernetes --detach, or Kubernetes(...).submit(plan); --dry_run '
        'shows it. To launch from here, say where the pods reach this machine: '
        "Kubernetes(address='10.0.0.5')"
      )
    manifest = self._jobset(plan, launcher=False)
    job = manifest['metadata']['name']
    cluster = Kubectl(self.kubectl, self.namespace)
    cluster.check()

    def submit(ticket: Ticket) -> None:
      shared = replace(ticket, unit='', life=None, environment={}, path=())
      self._create(cluster, manifest, {TICKET: shared.dumps().encode()})

    def withdraw() -> None:
      if trouble := cluster.delete('jobset', job):
        say(plan.name, f'JobSet {job!r} could not be deleted: {trouble}')

    return RemoteCrew(
      plan,
      PodEngine(self._logs(plan, job), say, submit, withdraw),
      self.address,
      deadline=self.deadline,
      arrival=self.arrival,
      silence=self.silence,
      port=self.port,
    )

  def _jobset(self, plan: Plan, launcher: bool) -> Manifest:
    if not self.image:
      version = importlib.metadata.version('callsheet')
      raise UsageError(
        "Kubernetes has to be told an image: Kubernetes(image='registry/callsheet:"
        f"{version}'), or --kubernetes_image=...; the Dockerfile makes one"
      )
    job = self._name(plan)
    manifest = jobset(job, groups(plan, job), self, launcher)
    checks.check(manifest)
    return manifest

  def _name(self, plan: Plan) -> str:
    if self.job is None:
      return proper_name(plan.name, _ROOM, set())
    if len(self.job) > _ROOM or not re.fullmatch(
      '[a-z]([-a-z0-9]*[a-z0-9])?', self.job
    ):
      raise UsageError(
        f'job={self.job!r} has {len(self.job)} characters; a JobSet takes at most '
        f"{_ROOM} of a-z, 0-9 and '-', a letter first: "
        f'job={proper_name(self.job, _ROOM, set())!r}'
      )
    return self.job

  def _content(self, plan: Plan, job: str, key: str) -> dict[str, bytes]:
    """What the pods read, the launcher's among them, by file name."""
    # Runs as a program itself: `import callsheet` must not have run it before.
    from callsheet.launch.remote import controller

    ticket = Ticket(
      desk=desk_address(job, self.port),
      secret=key,
      unit='',
      patience=self.silence,
      arrival=self.arrival,
    )
    launcher = Pods(self._logs(plan, job), self.deadline, self.arrival, self.silence)
    files = controller.files(plan, launcher)
    return {TICKET: ticket.dumps().encode(), **files}

  def _create(
    self, cluster: Kubectl, manifest: Manifest, content: Mapping[str, bytes]
  ) -> None:
    """The JobSet, then the Secret that its pods wait for and that goes with it."""
    job = manifest['metadata']['name']
    owner = cluster.create(manifest)
    try:
      cluster.create(secret(job, self.namespace, content, owner))
    except BaseException:
      cluster.delete('jobset', job)
      raise

  def _logs(self, plan: Plan, job: str) -> dict[str, str]:
    cluster = Kubectl(self.kubectl, self.namespace)
    return {
      unit: cluster.words(
        'logs', f'--selector=job-name={job}-{group.name}-0,{_INDEX}={index}'
      )
      for group in groups(plan, job)
      for index, unit in enumerate(group.units)
    }


_INDEX = 'batch.kubernetes.io/job-completion-index'
