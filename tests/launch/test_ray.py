"""What Ray gives beside what all backends do: hosts, resources, jobs, deaths."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from callsheet import Node, OnFailure, Program
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Running, launch, start
from callsheet.launch.ray.backend import Ray
from callsheet.launch.ray.bundles import Bundle, Host, bundles, lacking
from callsheet.programs import Resources
from tests.launch import services
from tests.launch.raylets import free_port


def one(resources: Resources, name: str = 'one') -> Program:
  program = Program('p')
  program.add(Node(name, resources=resources), services.Greeter)
  return program


def patiently(running: Running, condition: Callable[[], bool]) -> None:
  """Follows the program until the condition holds; Ray takes its time."""
  until = time.monotonic() + 100
  while not condition():
    assert time.monotonic() < until
    running.wait(0.1)


# Declared, and asked of Ray.


def asked(resources: Resources) -> Bundle:
  (bundle,) = bundles(one(resources).plan())
  return bundle


def test_resources_by_rays_names():
  assert asked(Resources()).resources == {'CPU': 1}
  assert asked(Resources(cpus=0)).resources == {'CPU': 0.001}, (
    'none at all is no bundle'
  )
  many = asked(Resources(cpus=2, gpus=3, memory_gb=1.5))
  assert many.resources == {'CPU': 2, 'GPU': 3, 'memory': 1_500_000_000}
  tpu = asked(Resources(tpu='v5e', tpu_topology='2x4'))
  assert tpu.resources == {
    'CPU': 1,
    'TPU': 8,
    'accelerator_type:TPU-V5LITEPOD': 0.001,
  }


def test_hosts_by_resource_address_or_label():
  selector = {'resource': 'a', 'host': '10.0.0.1', 'zone': 'x'}
  bundle = asked(Resources(node_selector=selector))
  assert bundle.resources == {'CPU': 1, 'a': 0.001, 'node:10.0.0.1': 0.001}
  assert bundle.labels == {'zone': 'x'}


def test_tpu_of_no_size_is_refused():
  with pytest.raises(UsageError, match=r"'one' asks for a TPU v4 of no size.*topology"):
    asked(Resources(tpu='v4'))


def test_what_a_cluster_lacks():
  hosts = (
    Host('10.0.0.1', {'CPU': 4, 'GPU': 1}),
    Host('10.0.0.2', {'CPU': 2}, {'zone': 'x'}),
  )
  fits = [
    Bundle('a', {'CPU': 3}),
    Bundle('b', {'CPU': 2, 'GPU': 1}),
    Bundle('c', {'CPU': 1}),
  ]
  assert lacking(fits, hosts) == ''
  assert lacking([*fits, Bundle('d', {'CPU': 1})], hosts) == (
    'the program asks for CPU 7; there is CPU 6 on 2 hosts'
  )
  assert lacking([Bundle('a', {'CPU': 5, 'GPU': 1})], hosts) == (
    "'a' asks for CPU 5, GPU 1 on one host; the most that one of 2 has: CPU 4, GPU 1"
  )
  assert lacking([Bundle('a', {'CPU': 3}, {'zone': 'x'})], hosts) == (
    "'a' asks for CPU 3 on one host; the most that one of 1 has: CPU 2"
  )
  assert lacking([Bundle('a', {'CPU': 1}, {'zone': 'y'})], hosts) == (
    "'a' asks for a host labelled {'zone': 'y'}; none of 2 is"
  )


def test_dry_run_says_what_would_be_submitted(monkeypatch):
  monkeypatch.setattr('sys.path', ['/there'])
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  program = one(Resources(cpus=2, gpus=1, node_selector={'zone': 'x'}), 'learner')
  program.add('counter', services.Greeter)
  backend = Ray('10.0.0.1:6379', strategy='SPREAD', python='/py')
  assert backend.dry_run(program.plan()) == (
    'Ray cluster: 10.0.0.1:6379; namespace: its own\n'
    'placement group: SPREAD, 2 bundles\n'
    '    0 learner  CPU 2, GPU 1, zone=x\n'
    '    1 counter  CPU 1\n'
    'actors, each in the bundle of its number:\n'
    '  p/learner/1: num_cpus=2, max_restarts=0, num_gpus=1, max_concurrency=2\n'
    '  p/counter/1: num_cpus=1, max_restarts=0, max_concurrency=2\n'
    'each starts, and gives its ticket by standard input (the secret is in there):\n'
    '  env PYTHONPATH=/there PYTHONUNBUFFERED=1 /py -m callsheet.launch.remote.worker'
  )


# Refused, before anything starts.


def refused(backend: Ray, resources: Resources | None = None) -> str:
  with pytest.raises(UsageError) as caught:
    launch(one(resources or Resources()), backend)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_unknown_strategy():
  with pytest.raises(UsageError, match='there are PACK and SPREAD'):
    Ray(strategy='pack')


def test_ray_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'ray', None)
  assert "pip install 'callsheet[ray]'" in refused(Ray())


def test_nobody_listens_there():
  address = f'127.0.0.1:{free_port()}'
  assert f'no Ray cluster at {address} within 10 s: Connection ref' in refused(
    Ray(address)
  )


def test_what_listens_there_says_nothing():
  with socket.create_server(('127.0.0.1', 0)) as server:
    address = f'127.0.0.1:{server.getsockname()[1]}'
    said = refused(Ray(address, joining=0.3))
  assert f'no Ray cluster at {address} within 0.3 s: timed out' in said


def test_what_listens_there_is_something_else():
  with socket.create_server(('127.0.0.1', 0)) as server:

    def answer() -> None:
      with server.accept()[0] as caller:
        caller.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n')
        caller.recv(1000)

    thread = threading.Thread(target=answer)
    thread.start()
    address = f'127.0.0.1:{server.getsockname()[1]}'
    assert refused(Ray(address)) == f'what answers at {address} is no Ray cluster'
    thread.join()


def test_no_cluster_on_this_host(monkeypatch, tmp_path):
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  monkeypatch.setenv('RAY_TMPDIR', str(tmp_path))
  assert 'no Ray cluster runs on this host' in refused(Ray('auto'))


def test_a_client_from_outside():
  assert 'must run on a host of the Ray cluster' in refused(Ray('ray://h:10001'))


def test_versions_that_differ(monkeypatch, ray_cluster):
  import ray

  def init(**options: object) -> None:
    raise RuntimeError('Version mismatch: The cluster was started with:\n  Ray: 0.1\n')

  monkeypatch.setattr(ray, 'init', init)
  assert 'Version mismatch: The cluster was started with: Ray: 0.1' in refused(
    Ray(ray_cluster.address)
  )


def test_more_than_there_is(ray_cluster):
  backend = Ray(ray_cluster.address)
  assert 'CPU 65 on one host; the most that one of 1 has: CPU 64' in refused(
    backend, Resources(cpus=65)
  )
  assert "labelled {'zone': 'x'}; none of 1 is" in refused(
    backend, Resources(node_selector={'zone': 'x'})
  )


def test_what_others_use(ray_cluster):
  hog = one(Resources(cpus=40), 'hog')
  backend = Ray(ray_cluster.address, placement=2)
  with start(hog, backend):
    said = refused(backend, Resources(cpus=30))
  assert (
    'no room for the program within 2 s: it asks for CPU 30 (PACK), free are' in said
  )


# Running.


def test_a_node_sees_the_accelerators_that_are_its_own(ray_cluster):
  program = Program('seers')
  blind = program.add('blind', services.Seer)
  seer = program.add(Node('seer', resources=Resources(gpus=1)), services.Seer)
  with start(program, Ray(ray_cluster.address, echo=False)) as running:
    assert running.client(blind).environment('CUDA_VISIBLE_DEVICES') == ''
    assert running.client(blind).environment('JAX_PLATFORMS') == 'cpu'
    assert running.client(seer).environment('CUDA_VISIBLE_DEVICES') == '0'


def test_killed_worker_is_named_with_its_signal(ray_cluster, tmp_path):
  program = services.killed()
  with pytest.raises(NodeFailed) as caught:
    launch(program, Ray(ray_cluster.address, log_directory=str(tmp_path)))
  assert caught.value.node == 'victim'
  assert caught.value.reason == 'its process was killed by SIGKILL'
  log = (tmp_path / 'victim.log').read_text()
  assert 'started as process' in log and 'killed by SIGKILL' in log


def keeper_of(worker: int) -> int:
  parent = psutil.Process(worker).parent()
  assert parent is not None and 'Keeper' in ' '.join(parent.cmdline())
  return parent.pid


def test_killed_actor_is_named(ray_cluster, tmp_path):
  program = Program('unkept')
  victim = program.add('victim', services.Forever, 'v', str(tmp_path / 'closed'))
  running = start(program, Ray(ray_cluster.address, log_directory=str(tmp_path)))
  with pytest.raises(NodeFailed) as caught, running:
    os.kill(keeper_of(running.client(victim).pid()), signal.SIGKILL)
    running.wait()
  assert caught.value.node == 'victim'
  assert (
    f'its actor on {socket.gethostname()} has died: its worker process has died'
    in (caught.value.reason)
  )


def test_killed_actor_is_restarted_with_its_worker(ray_cluster, tmp_path):
  program = Program('rekept')
  node = Node('victim', restart=OnFailure(max_restarts=3, backoff=0.1))
  victim = program.add(node, services.Forever, 'v', str(tmp_path / 'closed'))
  with start(program, Ray(ray_cluster.address, echo=False)) as running:
    client = running.client(victim)
    first = client.pid()
    os.kill(keeper_of(first), signal.SIGKILL)
    patiently(running, lambda: not psutil.pid_exists(first))
    assert client.pid() != first


def test_the_launchers_own_handler_of_sigterm_stays(ray_cluster):
  before = signal.getsignal(signal.SIGTERM)
  with start(one(Resources()), Ray(ray_cluster.address)):
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.timeout(300)
def test_a_cluster_of_the_programs_own(monkeypatch, tmp_path):
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  program = Program('alone')
  tally = program.add('tally', services.Tally)
  program.add(
    'caller', services.Caller, program.add('greeter', services.Greeter), tally
  )
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  with start(program, Ray(echo=False)) as running:
    patiently(running, lambda: running.client(tally).notes() == ['hello world'])
