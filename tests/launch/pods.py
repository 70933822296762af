"""A small cluster of one machine, spoken to as by kubectl: pods.py FOLDER VERB ...

It reads a JobSet and gives each pod a network namespace under its real name: with its
environment, mounted Secret, restarts, and the policies of Job and JobSet.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

from tests.launch.namespaces import Network


class Pod:
  """One pod; what restarts is its container."""

  def __init__(self, hostname: str, index: int, spec: dict[str, Any]) -> None:
    self.hostname, self.index, self.spec = hostname, index, spec
    self.namespace = self.ip = ''
    self.process: subprocess.Popen[bytes] | None = None
    self.succeeded = False

  def start(self, folder: Path) -> None:
    """Starts its container."""
    (container,) = self.spec['containers']
    environment = {name: os.environ[name] for name in ('PATH', 'HOME')}
    environment |= {'JOB_COMPLETION_INDEX': str(self.index), 'HOSTNAME': self.hostname}
    for variable in container['env']:
      environment[variable['name']] = self._value(variable)
    volumes = {volume['name']: volume['secret'] for volume in self.spec['volumes']}
    mounts = {
      mount['mountPath']: volumes[mount['name']] for mount in container['volumeMounts']
    }
    inside = json.dumps([str(folder), self.hostname, mounts, container['command']])
    command = ['ip', 'netns', 'exec', self.namespace, 'unshare', '--mount', '--uts']
    here = [sys.executable, '-c', f'import {__name__} as p; p.contain()', inside]
    with open(folder / f'{self.hostname}.log', 'ab') as log:
      self.process = subprocess.Popen(
        [*command, *here],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=_hear_sigterm,
      )

  def _value(self, variable: dict[str, Any]) -> str:
    if 'value' in variable:
      return str(variable['value'])
    assert variable['valueFrom'] == {'fieldRef': {'fieldPath': 'status.podIP'}}
    return self.ip

  def signal(self, number: signal.Signals) -> None:
    """Sends its processes a signal."""
    if self.process is not None and self.process.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self.process.pid, number)


def _hear_sigterm() -> None:
  signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


class Job:
  """A Job's pods, by index."""

  def __init__(self, name: str, jobset: str, number: int, spec: dict[str, Any]) -> None:
    self.name, self._limit = name, spec['backoffLimit']
    pod = spec['template']['spec']
    assert spec['completionMode'] == 'Indexed'
    assert spec['parallelism'] == spec['completions']
    self.restarts = pod['restartPolicy'] == 'OnFailure'
    self.pods = [
      Pod(f'{jobset}-{name}-{number}-{index}', index, pod)
      for index in range(spec['completions'])
    ]
    self.failures = 0

  def look(self, folder: Path) -> bool:
    """Restarts what may be; False if the job has failed."""
    for pod in self.pods:
      assert pod.process is not None
      code = pod.process.poll()
      if code is None or pod.succeeded:
        continue
      pod.succeeded = code == 0
      if code != 0:
        self.failures += 1
        # Containers that restart in place are counted unlike pods that fail.
        limit = max(1, self._limit) if self.restarts else self._limit + 1
        if self.failures >= limit:
          return False
        pod.start(folder)
    return True

  @property
  def complete(self) -> bool:
    return all(pod.succeeded for pod in self.pods)


def run(folder: Path, name: str) -> None:
  """Runs a JobSet to its end, as its controller, the Job's and the kubelet do."""
  # SIGTERM is its deletion; it comes when it is waited for.
  signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
  spec = json.loads((folder / f'{name}.jobset').read_text())['spec']
  restarts = spec['failurePolicy']['maxRestarts']
  targets = spec.get('successPolicy', {}).get('targetReplicatedJobs')
  while True:
    jobs = [
      Job(each['name'], name, number, each['template']['spec'])
      for each in spec['replicatedJobs']
      for number in range(each['replicas'])
    ]
    end = _run_once(folder, name, jobs, targets)
    _terminate([pod for job in jobs for pod in job.pods])
    if not end.startswith('Failed') or restarts == 0:
      break
    restarts -= 1
  (folder / f'{name}.status').write_text(end)


def _run_once(
  folder: Path, name: str, jobs: list[Job], targets: list[str] | None
) -> str:
  pods = [pod for job in jobs for pod in job.pods]
  Network.load(folder).place(pods, subdomain=name)
  secret = folder / f'{name}-program.secret'
  while not secret.exists():
    if signal.sigtimedwait({signal.SIGTERM}, 0.01):
      return 'Deleted'
  for pod in pods:
    pod.start(folder)
  while not signal.sigtimedwait({signal.SIGTERM}, 0.01):
    for job in jobs:
      if not job.look(folder):
        return f'Failed: {job.name}'
    if all(job.complete for job in jobs if targets is None or job.name in targets):
      return 'Completed'
  return 'Deleted'


def _terminate(pods: list[Pod]) -> None:
  for pod in pods:
    pod.signal(signal.SIGTERM)
  grace = max(pod.spec['terminationGracePeriodSeconds'] for pod in pods)
  until = time.monotonic() + grace
  for pod in pods:
    assert pod.process is not None or not pod.ip
    if pod.process is not None:
      with contextlib.suppress(subprocess.TimeoutExpired):
        pod.process.wait(max(0.0, until - time.monotonic()))
      with contextlib.suppress(ProcessLookupError):
        os.killpg(pod.process.pid, signal.SIGKILL)
      pod.process.wait()


def contain() -> None:
  """Inside of the pod's namespaces: mounts its files, and becomes its command."""
  folder, hostname, mounts, command = json.loads(sys.argv[1])
  subprocess.run(['hostname', hostname], check=True)
  for path, source in mounts.items():
    root = Path('/', *Path(path).parts[1:2])
    subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', str(root)], check=True)
    Path(path).mkdir(parents=True)
    secret = Path(folder, f'{source["secretName"]}.secret').read_text()
    data = json.loads(secret)['data']
    items = source.get('items', [{'key': key, 'path': key} for key in data])
    for item in items:
      file = Path(path, item['path'])
      file.write_bytes(base64.b64decode(data[item['key']]))
      file.chmod(source['defaultMode'])
  os.execvp(command[0], command)


def _create(folder: Path) -> None:
  import yaml  # Not in every pod.

  manifest = yaml.safe_load(sys.stdin)
  kind, name = manifest['kind'].lower(), manifest['metadata']['name']
  file = folder / f'{name}.{kind}'
  if file.exists():
    sys.exit(f'Error from server (AlreadyExists): {kind} "{name}" already exists')
  with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), 'w') as stream:
    json.dump(manifest, stream)
  if kind == 'jobset' and (pid := os.fork()) != 0:
    (folder / f'{name}.pid').write_text(str(pid))
  elif kind == 'jobset':
    # No child of the test's: what is left of the cluster is not the backend's.
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(folder / 'cluster.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, target in enumerate((null, log, log)):
      os.dup2(target, number)
    try:
      run(folder, name)
    except BaseException:
      traceback.print_exc()
      (folder / f'{name}.status').write_text('Failed: the cluster itself')
    os._exit(0)
  print(uuid.uuid4(), end='')


def delete(folder: Path, name: str) -> None:
  """Ends a JobSet, waits until it has ended, and forgets it."""
  pid = folder / f'{name}.pid'
  with contextlib.suppress(ProcessLookupError, FileNotFoundError):
    while not (folder / f'{name}.status').exists():
      os.kill(int(pid.read_text()), signal.SIGTERM)
      time.sleep(0.05)
  for kind in ('pid', 'status', 'jobset'):
    (folder / f'{name}.{kind}').unlink(missing_ok=True)
  (folder / f'{name}-program.secret').unlink(missing_ok=True)


def main() -> None:
  """Understands as much of kubectl as the package says to it."""
  folder, verb = Path(sys.argv[1]), sys.argv[2]
  words = [word for word in sys.argv[3:] if not word.startswith('--')]
  if verb == 'api-resources':
    print('jobsets.jobset.x-k8s.io')
  elif verb == 'create':
    _create(folder)
  elif verb == 'delete':
    kind, name = words
    assert kind == 'jobset'
    delete(folder, name)
  else:
    sys.exit(f'error: unknown command "{verb}"')
