"""What a JobSet's webhook refuses and its schema does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from callsheet.errors import UsageError

_LABEL = re.compile(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?')
_VALUE = re.compile(r'([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?')
_VARIABLE = re.compile(r'[-._A-Za-z][-._A-Za-z0-9]*')
_LONGEST = 63
_TAIL = 6  # '-' and five characters that a pod's name ends with


def check(manifest: dict[str, Any]) -> None:
  """Looks for what would be refused only by the cluster, or by nobody.

  Raises:
    UsageError: the first thing that is wrong.
  """
  for complaint in complaints(manifest):
    raise UsageError(f'JobSet {manifest["metadata"]["name"]!r}: {complaint}')


def complaints(manifest: dict[str, Any]) -> Iterator[str]:
  """All that is wrong, one line each."""
  spec, job = manifest['spec'], manifest['metadata']['name']
  if not _LABEL.fullmatch(job):
    yield f'its name must be of a-z, 0-9 and -, a letter first: {job!r}'
  names = [each['name'] for each in spec['replicatedJobs']]
  for name in sorted({name for name in names if names.count(name) > 1}):
    yield f'{names.count(name)} replicated jobs are called {name!r}'
  policies = [('successPolicy', spec.get('successPolicy') or {})]
  rules = (spec.get('failurePolicy') or {}).get('rules', [])
  policies += [(f'failurePolicy rule {rule.get("name")!r}', rule) for rule in rules]
  for where, policy in policies:
    for target in policy.get('targetReplicatedJobs', []):
      if target not in names:
        yield f'{where} targets {target!r}; there are {", ".join(names)}'
  for index, each in enumerate(spec['replicatedJobs']):
    for needed in each.get('dependsOn', []):
      if needed['name'] not in names[:index]:
        yield f'{each["name"]!r} depends on {needed["name"]!r}, which is not before it'
    yield from _of_one(job, each)


def _of_one(job: str, each: dict[str, Any]) -> Iterator[str]:
  name, batch = each['name'], each['template']['spec']
  pods = batch.get('completions', 1)
  if not _LABEL.fullmatch(name):
    yield f'a replicated job must be of a-z, 0-9 and -, a letter first: {name!r}'
  longest = len(f'{job}-{name}-{each["replicas"] - 1}-{pods - 1}') + _TAIL
  if longest > _LONGEST:
    yield (
      f'the pods of {name!r} would have names of {longest} characters, at most '
      f'{_LONGEST} are allowed'
    )
  if batch.get('parallelism', 1) != pods:
    yield (
      f'{name!r} has parallelism {batch.get("parallelism", 1)} and completions {pods}: '
      'all of its pods must run at once'
    )
  pod = batch['template']['spec']
  for key, value in pod.get('nodeSelector', {}).items():
    if not _VALUE.fullmatch(value):
      yield f'{name!r} selects hosts of {key}={value!r}, which is no value of a label'
  mounted = {volume['name'] for volume in pod.get('volumes', [])}
  for container in pod['containers']:
    for mount in container.get('volumeMounts', []):
      if mount['name'] not in mounted:
        yield f'{name!r} mounts {mount["name"]!r}; there are {", ".join(mounted)}'
    variables = [variable['name'] for variable in container.get('env', [])]
    for variable in variables:
      if not _VARIABLE.fullmatch(variable):
        yield f'{name!r} sets {variable!r}, which is no name of a variable'
    for variable in sorted({v for v in variables if variables.count(v) > 1}):
      yield f'{name!r} sets {variable!r} twice'
