"""Ray on two hosts, one of which dies, and programs handed over as jobs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import pytest

from callsheet import Node, OnFailure, Program
from callsheet.calls import with_deadline
from callsheet.errors import CourierError, UsageError
from callsheet.launch import start
from callsheet.launch.ray import Ray
from callsheet.programs import Resources
from tests.launch import services
from tests.launch.hosts import Hosts, hosts
from tests.launch.raylets import Raylets, free_port, raylets
from tests.launch.test_ray import one, patiently

pytestmark = pytest.mark.clusters


@pytest.fixture
def two_hosts(nothing_left: None) -> Iterator[tuple[Hosts, Raylets]]:
  with hosts(1) as made:
    a = '--resources={"a": 1}'
    with raylets('--num-cpus=4', a, host=made.address) as cluster:
      at = made.names[0], made.addresses[0]
      cluster.join(*at, '--num-cpus=4', '--labels=zone=x')
      yield made, cluster


def answers(client: services.Forever, worker: int = 0) -> bool:
  """Whether there is another process; asked without holding the supervisor up."""
  with contextlib.suppress(CourierError):
    return with_deadline(client.pid, 0.5)() != worker
  return False


@pytest.mark.timeout(300)
def test_a_unit_moves_from_a_host_that_dies(two_hosts, tmp_path):
  made, cluster = two_hosts
  program = Program('moving')
  stays = Node('stays', resources=Resources(node_selector={'resource': 'a'}))
  program.add(stays, services.Forever, 's', str(tmp_path / 'closed'))
  node = Node('moves', restart=OnFailure(max_restarts=9, backoff=1.0))
  moves = program.add(node, services.Forever, 'm', str(tmp_path / 'closed'))
  backend = Ray(cluster.address, strategy='SPREAD', log_directory=str(tmp_path))
  with start(program, backend) as running:
    patiently(running, lambda: answers(running.client('moves')))
    worker = running.client(moves).pid()
    assert worker in made.pids(made.names[0])
    made.vanish(made.names[0])
    patiently(running, lambda: answers(running.client('moves'), worker))
    assert running.client('stays').ping() == 's'
  assert 'its actor' in (tmp_path / 'moves.log').read_text()


@pytest.mark.timeout(300)
def test_a_host_by_its_address_or_its_label(two_hosts, tmp_path):
  made, cluster = two_hosts
  other = made.addresses[0]
  for selector in {'host': other}, {'host': made.address}, {'zone': 'x'}:
    program = Program('placed')
    node = Node('node', resources=Resources(node_selector=selector))
    placed = program.add(node, services.Forever, 'p', str(tmp_path / 'closed'))
    try:
      with start(program, Ray(cluster.address)) as running:
        patiently(running, lambda: answers(running.client('node')))
        there = running.client(placed).pid() in made.pids(made.names[0])
      assert there == (selector != {'host': made.address})
    except UsageError as error:  # Ray 2.48 knows labels, but may not heed them.
      assert 'does not heed the labels' in str(error) and 'zone' in selector


@pytest.mark.timeout(300)
def test_submitted_as_a_job(tmp_path):
  from ray.job_submission import JobStatus, JobSubmissionClient

  program = Program('job')
  tally = program.add('tally', services.Tally)
  program.add(
    'caller', services.Caller, program.add('greeter', services.Greeter), tally
  )
  program.add(Node('watcher', ends_program=True), services.Watcher, tally, 1)
  with raylets('--num-cpus=8', dashboard=True) as cluster:
    dashboard = f'http://127.0.0.1:{cluster.dashboard}'
    logs = tmp_path / 'logs'
    backend = Ray(
      dashboard=dashboard, python=sys.executable, log_directory=str(logs), echo=False
    )
    job = backend.submit(program.plan()).split()[1].rstrip(';')
    client = JobSubmissionClient(dashboard)
    until = time.monotonic() + 150
    while not client.get_job_status(job).is_terminal():
      assert time.monotonic() < until, client.get_job_logs(job)
      time.sleep(0.5)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)
  assert 'the worker has ended' in (logs / 'watcher.log').read_text()


def test_nobody_takes_jobs_there():
  address = f'http://127.0.0.1:{free_port()}'
  with pytest.raises(UsageError, match=f'no Ray cluster takes jobs at {address}'):
    Ray(dashboard=address).submit(one(Resources()).plan())
