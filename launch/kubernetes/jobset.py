"""A plan as a JobSet (jobset.x-k8s.io/v1alpha2), and the Secret that its pods read."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from callsheet.errors import UsageError
from callsheet.launch.devices import process_environment
from callsheet.launch.kubernetes.groups import LAUNCHER, Group
from callsheet.launch.kubernetes.tpu_shapes import slice_of
from callsheet.launch.remote.ticket import UNITS
from callsheet.programs.resources import Resources

if TYPE_CHECKING:
  from callsheet.launch.kubernetes.backend import Kubernetes

FOLDER = '/run/callsheet'  # where a pod finds the Secret's files
TICKET = 'ticket.json'
ADDRESS = 'CALLSHEET_POD_ADDRESS'  # tells the launcher's pod its own
_SECRET_LIMIT = 2**20  # bytes; a Secret takes no more
_EXCLUSIVE = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
_LAUNCHER_RESOURCES = Resources(cpus=1, memory_gb=1)

Manifest = dict[str, Any]


def jobset(
  job: str, groups: tuple[Group, ...], options: Kubernetes, launcher: bool
) -> Manifest:
  """The JobSet of a program.

  The nodes' pods sign on at the launcher's desk. Where the launcher is a pod, too, the
  program has ended when it has: it completes when the node that ends the program does.

  Args:
    job: its name.
    groups: of the units.
    options: see there.
    launcher: whether the launcher is one of its pods.

  Raises:
    UsageError: a node asks for what Kubernetes has not.
  """
  metadata: Manifest = {'name': job}
  if options.namespace is not None:
    metadata['namespace'] = options.namespace
  if options.queue is not None:
    metadata['labels'] = {'kueue.x-k8s.io/queue-name': options.queue}
  jobs = [_launcher(job, options)] if launcher else []
  jobs += [_workers(job, group, options) for group in groups]
  spec: Manifest = {
    'network': {'enableDNSHostnames': True, 'publishNotReadyAddresses': True},
    'failurePolicy': {'maxRestarts': options.restarts if launcher else 0},
    'replicatedJobs': jobs,
  }
  if launcher:
    targets = {'operator': 'All', 'targetReplicatedJobs': [LAUNCHER]}
    spec['successPolicy'] = targets
  if options.ttl is not None:
    spec['ttlSecondsAfterFinished'] = options.ttl
  return {
    'apiVersion': 'jobset.x-k8s.io/v1alpha2',
    'kind': 'JobSet',
    'metadata': metadata,
    'spec': spec,
  }


def secret(
  job: str, namespace: str | None, content: Mapping[str, bytes], owner: str | None
) -> Manifest:
  """The Secret of a program; it goes when its JobSet goes.

  Args:
    job: the JobSet's name.
    namespace: the JobSet's.
    content: of each file.
    owner: the JobSet's uid; None before there is one.

  Raises:
    UsageError: it is larger than a Secret may be.
  """
  sizes = {name: len(data) for name, data in content.items()}
  if sum(sizes.values()) > _SECRET_LIMIT:
    listed = ', '.join(f'{name} {size:,}' for name, size in sizes.items())
    raise UsageError(
      f"the program's files have {sum(sizes.values()):,} bytes ({listed}) and a "
      f'Kubernetes Secret takes {_SECRET_LIMIT:,}: put large arguments of nodes into '
      'the image or onto the volume, and give the nodes their path'
    )
  metadata: Manifest = {'name': secret_name(job)}
  if namespace is not None:
    metadata['namespace'] = namespace
  if owner is not None:
    reference = {'apiVersion': 'jobset.x-k8s.io/v1alpha2', 'kind': 'JobSet'}
    metadata['ownerReferences'] = [{**reference, 'name': job, 'uid': owner}]
  return {
    'apiVersion': 'v1',
    'kind': 'Secret',
    'metadata': metadata,
    'type': 'Opaque',
    'immutable': True,
    'data': {name: base64.b64encode(data).decode() for name, data in content.items()},
  }


def secret_name(job: str) -> str:
  """What the Secret of a JobSet is called."""
  return f'{job}-program'


def desk_address(job: str, port: int) -> str:
  """Where the launcher's pod listens, by its name in the JobSet's headless service."""
  return f'tcp:{job}-{LAUNCHER}-0-0.{job}:{port}'


def _launcher(job: str, options: Kubernetes) -> Manifest:
  command = [options.python, '-m', 'callsheet.launch.remote.controller', FOLDER]
  environment = _environment(_LAUNCHER_RESOURCES, options)
  address = {'fieldRef': {'fieldPath': 'status.podIP'}}
  pod = _pod(job, LAUNCHER, _LAUNCHER_RESOURCES, options, command, environment, None)
  pod['containers'][0]['env'].append({'name': ADDRESS, 'valueFrom': address})
  pod['containers'][0]['ports'] = [{'name': 'desk', 'containerPort': options.port}]
  return _replicated(LAUNCHER, 1, 0, {'restartPolicy': 'Never', **pod}, {})


def _workers(job: str, group: Group, options: Kubernetes) -> Manifest:
  command = [options.python, '-m', 'callsheet.launch.remote.worker']
  command.append(f'{FOLDER}/{TICKET}')
  environment = _environment(group.resources, options)
  environment[UNITS] = ','.join(group.units)
  pod = _pod(job, group.name, group.resources, options, command, environment, TICKET)
  policy = {'restartPolicy': 'OnFailure' if group.restarts else 'Never'}
  annotations = {}
  if group.together and options.topology_key:
    annotations[_EXCLUSIVE] = options.topology_key
  pods = len(group.units)
  return _replicated(group.name, pods, group.backoff, {**policy, **pod}, annotations)


def _replicated(
  name: str, pods: int, backoff: int, pod: Manifest, annotations: dict[str, str]
) -> Manifest:
  template: Manifest = {
    'spec': {
      'completionMode': 'Indexed',
      'parallelism': pods,
      'completions': pods,
      'backoffLimit': backoff,
      'template': {'spec': pod},
    }
  }
  if annotations:
    template = {'metadata': {'annotations': annotations}, **template}
  return {'name': name, 'replicas': 1, 'template': template}


def _pod(
  job: str,
  name: str,
  resources: Resources,
  options: Kubernetes,
  command: list[str],
  environment: Mapping[str, str],
  file: str | None,
) -> Manifest:
  """A pod's specification, but for when it restarts; `file` alone of the Secret."""
  mounts = [{'name': 'program', 'mountPath': FOLDER, 'readOnly': True}]
  source: Manifest = {'secretName': secret_name(job), 'defaultMode': 0o400}
  if file is not None:
    source['items'] = [{'key': file, 'path': file}]
  volumes: list[Manifest] = [{'name': 'program', 'secret': source}]
  if options.volume is not None:
    mounts.append({'name': 'runs', 'mountPath': options.volume_path})
    claim = {'claimName': options.volume}
    volumes.append({'name': 'runs', 'persistentVolumeClaim': claim})
  inside: Manifest = {'name': name, 'image': options.image}
  if options.image_pull_policy is not None:
    inside['imagePullPolicy'] = options.image_pull_policy
  inside['command'] = command
  inside['env'] = [{'name': n, 'value': v} for n, v in sorted(environment.items())]
  inside['resources'], selector = _amounts(name, resources)
  inside['volumeMounts'] = mounts
  pod: Manifest = {
    'terminationGracePeriodSeconds': options.grace,
    'enableServiceLinks': False,
    'automountServiceAccountToken': options.service_account is not None,
    'containers': [inside],
    'volumes': volumes,
  }
  if options.service_account is not None:
    pod['serviceAccountName'] = options.service_account
  if options.user is not None:
    # The group may read what is mounted with mode 400, and write the volume.
    pod['securityContext'] = {
      'runAsNonRoot': True,
      'runAsUser': options.user,
      'fsGroup': options.user,
      'fsGroupChangePolicy': 'OnRootMismatch',
    }
  if selector:
    pod['nodeSelector'] = selector
  return pod


def _environment(resources: Resources, options: Kubernetes) -> dict[str, str]:
  # Not the launching machine's: its paths are not the image's.
  environment = {'PYTHONUNBUFFERED': '1', **process_environment(resources, {})}
  if options.python_path:
    environment['PYTHONPATH'] = ':'.join(options.python_path)
  return environment


def _amounts(node: str, resources: Resources) -> tuple[Manifest, dict[str, str]]:
  """What a container requests, and what its host must be."""
  requests: dict[str, str] = {}
  limits: dict[str, str] = {}
  selector = dict(resources.node_selector)
  if resources.cpus:
    requests['cpu'] = f'{math.ceil(resources.cpus * 1000)}m'
  if resources.memory_gb is not None:
    limits['memory'] = requests['memory'] = f'{math.ceil(resources.memory_gb * 1000)}M'
  if resources.gpus:
    limits['nvidia.com/gpu'] = str(resources.gpus)
  if (tpu := slice_of(node, resources)) is not None:
    limits['google.com/tpu'] = requests['google.com/tpu'] = str(tpu.chips)
    selector['cloud.google.com/gke-tpu-accelerator'] = tpu.accelerator
    selector['cloud.google.com/gke-tpu-topology'] = tpu.topology
  amounts: Manifest = {'requests': requests} if requests else {}
  if limits:
    amounts['limits'] = limits
  return amounts, selector
