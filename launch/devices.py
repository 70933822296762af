"""What the processes of a node may use, as environment variables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from callsheet.programs.resources import Resources


def process_environment(
  resources: Resources, inherited: Mapping[str, str]
) -> dict[str, str]:
  """The environment of a process that holds these resources.

  Numerical libraries start a thread a core in every process unless told otherwise,
  and a program has many processes: each gets as many as it declares. A process that
  declares no accelerator sees none.

  Args:
    resources: what the node declares.
    inherited: the environment to start from.
  """
  cpus = max(1, math.floor(resources.cpus))
  environment = dict(inherited)
  for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'NPROC'):
    environment[name] = str(cpus)
  if cpus == 1:
    flags = inherited.get('XLA_FLAGS', '')
    environment['XLA_FLAGS'] = f'{flags} --xla_cpu_multi_thread_eigen=false'.strip()
  if not resources.gpus and not resources.tpu:
    environment['JAX_PLATFORMS'] = 'cpu'
    environment['CUDA_VISIBLE_DEVICES'] = ''
  environment.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  environment.update(resources.environment)
  return environment


def unit_resources(all_resources: tuple[Resources, ...]) -> Resources:
  """What the process of colocated nodes holds: the sum of what each declares."""
  if len(all_resources) == 1:
    return all_resources[0]
  environment: dict[str, str] = {}
  node_selector: dict[str, str] = {}
  for resources in all_resources:
    environment.update(resources.environment)
    node_selector.update(resources.node_selector)
  memory = [resources.memory_gb for resources in all_resources if resources.memory_gb]
  return Resources(
    cpus=sum(resources.cpus for resources in all_resources),
    gpus=sum(resources.gpus for resources in all_resources),
    tpu=next((r.tpu for r in all_resources if r.tpu), None),
    tpu_topology=next((r.tpu_topology for r in all_resources if r.tpu_topology), None),
    memory_gb=sum(memory) or None,
    environment=environment,
    node_selector=node_selector,
  )
