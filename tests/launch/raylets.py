"""Real Ray clusters on this machine; further hosts are network namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

_START = (sys.executable, '-m', 'ray.scripts.scripts', 'start')
_ENVIRONMENT = {
  'RAY_USAGE_STATS_ENABLED': '0',
  'RAY_AUTH_MODE': 'disabled',  # Whatever tokens there are on this machine.
  # Processes that nobody asked for would be as many as there are CPUs.
  'RAY_prestart_worker_first_driver': '0',
  'RAY_enable_worker_prestart': '0',
  # A dead raylet is noticed within seconds, on a busy machine too.
  'RAY_health_check_period_ms': '1000',
  'RAY_health_check_timeout_ms': '3000',
  'RAY_health_check_failure_threshold': '5',
}


@dataclass
class Raylets:
  """A Ray cluster: its head, and further hosts.

  Attributes:
    folder: what its processes are told apart by, and keep their files in.
    host: the head's address.
    port: of the head.
    dashboard: its port, where jobs are submitted; 0 for none.
  """

  folder: str
  host: str
  port: int
  dashboard: int

  @property
  def address(self) -> str:
    return f'{self.host}:{self.port}'

  def head(self, *options: str) -> None:
    dashboard = ['--include-dashboard=false']
    if self.dashboard:
      dashboard = ['--include-dashboard=true', f'--dashboard-port={self.dashboard}']
    _run(
      *_START,
      '--head',
      f'--node-ip-address={self.host}',
      f'--port={self.port}',
      f'--temp-dir={self.folder}',
      # By default all clusters of a machine would have the same one.
      f'--dashboard-agent-listen-port={free_port()}',
      *dashboard,
      *options,
    )

  def join(self, name: str, address: str, *options: str) -> None:
    """One more host, in this network namespace; its temporary folder is its own."""
    mounted = f'mount -t tmpfs tmpfs {self.folder} && exec "$@"'
    _run(
      *('ip', 'netns', 'exec', name, 'unshare', '-m', 'sh', '-c', mounted, 'sh'),
      *(*_START, f'--address={self.address}', f'--node-ip-address={address}'),
      *options,
    )

  def pids(self) -> set[int]:
    """The cluster's own processes."""
    found = set()
    for process in psutil.process_iter():
      with contextlib.suppress(psutil.Error):
        if any(self.folder in word for word in process.cmdline()):
          found.add(process.pid)
    return found


@contextlib.contextmanager
def raylets(
  *options: str, host: str = '127.0.0.1', dashboard: bool = False
) -> Iterator[Raylets]:
  """A cluster of one host, the head; nothing is left of it afterwards."""
  folder = tempfile.mkdtemp(prefix='raylets-')
  cluster = Raylets(folder, host, free_port(), free_port() if dashboard else 0)
  try:
    for left in reversed(range(3 if dashboard else 1)):
      try:
        cluster.head(*options)
        break
      except AssertionError:
        # Ray waits but 20 s for its dashboard, which a busy machine may miss.
        if not left:
          raise
        _kill(cluster.pids())
    yield cluster
  finally:
    _kill(cluster.pids())
    shutil.rmtree(folder)


def _run(*command: str) -> None:
  done = subprocess.run(
    command,
    env={**os.environ, **_ENVIRONMENT},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    timeout=90,
  )
  assert done.returncode == 0, done.stdout.decode()


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return int(probe.getsockname()[1])


def _kill(pids: set[int]) -> None:
  family: list[psutil.Process] = []
  for pid in pids:
    with contextlib.suppress(psutil.NoSuchProcess):
      process = psutil.Process(pid)
      family += [process, *process.children(recursive=True)]
  for process in family:
    with contextlib.suppress(psutil.NoSuchProcess):
      process.kill()
  until = time.monotonic() + 10
  while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
    assert time.monotonic() < until, f'still there: {family}'
    time.sleep(0.05)
