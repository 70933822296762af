"""What every launch test has to leave behind: nothing."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from _pytest.mark.structures import ParameterSet

from callsheet.launch import Backend, Processes, Ray, Slurm, backend_of
from callsheet.launch.launchpad import Launchpad
from tests.launch import slurm_cluster as slurm
from tests.launch.cluster import Cluster
from tests.launch.main import here
from tests.launch.namespaces import why_not
from tests.launch.raylets import Raylets, raylets

ROOT = Path(__file__).parents[2]


def _traces() -> tuple[set[int], set[str], set[str], set[object]]:
  me = psutil.Process()
  sockets = {c.laddr for c in me.net_connections('inet') if c.status == 'LISTEN'}
  return (
    {child.pid for child in me.children(recursive=True)},
    {thread.name for thread in threading.enumerate()},
    set(glob.glob(os.path.join(tempfile.gettempdir(), 'callsheet-*'))),
    sockets,
  )


@pytest.fixture(scope='session')
def slurm_cluster() -> Iterator[slurm.Cluster]:
  """A cluster of three nodes, started when the first test needs it."""
  if reason := slurm.missing():
    pytest.skip(f'a Slurm cluster can not run here: {reason}')
  yield from slurm.cluster(Path(tempfile.mkdtemp(prefix='slurm-')))


@pytest.fixture
def on_slurm(
  slurm_cluster: slurm.Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[slurm.Cluster]:
  """The cluster as this process's own; no job may be left in it."""
  for name, value in slurm_cluster.environment.items():
    monkeypatch.setenv(name, value)
  yield slurm_cluster
  try:
    wait_for(lambda: not slurm_cluster.jobs(), slurm_cluster.jobs)
  finally:
    slurm_cluster.cancel()


@pytest.fixture(scope='session')
def ray_cluster() -> Iterator[Raylets]:
  """A Ray cluster with room for every program of the suite."""
  pytest.importorskip(
    'ray', reason="Ray is not installed: pip install 'callsheet[ray]'"
  )
  with raylets('--num-cpus=64', '--num-gpus=1') as cluster:
    yield cluster


@pytest.fixture(scope='session')
def kubernetes_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
  """A Kubernetes cluster of this machine's own; skips where there can be none."""
  if reason := why_not():
    pytest.skip(reason)
  made = Cluster(tmp_path_factory.mktemp('cluster'))
  try:
    yield made
  finally:
    made.close()


@pytest.fixture
def clusters(request: pytest.FixtureRequest) -> None:
  """What outlives the tests is started before its traces count as theirs."""
  parameters = getattr(getattr(request.node, 'callspec', None), 'params', {})
  named = f'{parameters.get("backend")}_cluster'
  for fixture in ('slurm_cluster', 'ray_cluster'):
    if fixture == named or fixture in request.fixturenames:
      request.getfixturevalue(fixture)


@pytest.fixture(autouse=True)
def nothing_left(clusters: None) -> Iterator[None]:
  """Fails a test that leaves a process, a thread, a temporary folder or a port."""
  before = _traces()
  yield
  wait_for(
    lambda: all(now <= then for now, then in zip(_traces(), before, strict=True)),
    lambda: f'left behind: {[n - t for n, t in zip(_traces(), before, strict=True)]}',
  )


def _of_a_cluster(backend: str) -> ParameterSet:
  return pytest.param(backend, marks=pytest.mark.clusters)


@pytest.fixture(
  params=[
    'threads',
    'processes',
    'ssh',
    _of_a_cluster('slurm'),
    _of_a_cluster('ray'),
    _of_a_cluster('kubernetes'),
    'launchpad',
  ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
  """Every launch backend, on this machine or on a cluster that is made of it."""
  logs = str(tmp_path / 'logs')
  if request.param == 'slurm':
    request.getfixturevalue('on_slurm')
    return Slurm(log_directory=logs)
  if request.param == 'ssh':
    return here(logs)
  if request.param == 'launchpad':
    pytest.importorskip(
      'launchpad', reason='dm-launchpad is not installed: it needs Python 3.10'
    )
    return Launchpad(log_directory=logs)
  if request.param == 'ray':
    return Ray(request.getfixturevalue('ray_cluster').address, log_directory=logs)
  if request.param == 'kubernetes':
    cluster: Cluster = request.getfixturevalue('kubernetes_cluster')
    return cluster.backend(address=cluster.network.address)
  if request.param == 'processes':
    return Processes(log_directory=logs)
  return backend_of(request.param)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
  """Starts tests/launch/main.py, with one thread in it."""
  (tmp_path / 'temp').mkdir()
  processes: list[subprocess.Popen[str]] = []

  def launched(*args: str, **options: object) -> subprocess.Popen[str]:
    environment = {
      **os.environ,
      'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]),
      'OPENBLAS_NUM_THREADS': '1',
      'OMP_NUM_THREADS': '1',
      'MKL_NUM_THREADS': '1',
    }
    process = subprocess.Popen(
      [sys.executable, '-m', 'tests.launch.main', str(tmp_path / 'logs'), *args],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      cwd=ROOT,
      env=environment,
      **options,
    )
    processes.append(process)
    return process

  yield launched
  for process in processes:
    process.kill()
    process.wait()
    if process.stdout:
      process.stdout.close()


def wait_for(
  condition: Callable[[], bool],
  complaint: Callable[[], str] = lambda: 'timed out',
  seconds: float = 90.0,
) -> None:
  """Waits for a condition, at most so many seconds."""
  until = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < until, complaint()
    time.sleep(0.02)
