"""What processes have and threads don't: logs, prefixes, and lives of their own."""

from __future__ import annotations

import contextlib
import io
import os
import signal

import pytest
from rich.console import Console

from callsheet import Node, OnFailure, Program, with_deadline
from callsheet.errors import CourierError, NodeFailed, UsageError
from callsheet.launch import Processes, Terminal, launch, start
from callsheet.launch.devices import process_environment, unit_resources
from callsheet.programs import Resources
from tests.launch import services
from tests.launch.conftest import wait_for


def test_output_goes_to_a_log_and_under_the_nodes_name(tmp_path):
  program = Program('noisy')
  program.add('bad', services.BadRun)
  screen = io.StringIO()
  backend = Processes(log_directory=str(tmp_path / 'logs'))
  terminal = Terminal(Console(file=screen, width=200))
  running = start(program, backend, terminal=terminal)
  with pytest.raises(NodeFailed) as caught, running:
    running.wait()
  log = tmp_path / 'logs' / 'bad.log'
  assert caught.value.log == str(log)
  assert 'about to fail\n' in log.read_text()
  assert 'bad | about to fail' in screen.getvalue()


def test_log_of_a_failed_program_is_kept(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  program = Program('bad')
  program.add('bad', services.BadRun)
  with pytest.raises(NodeFailed) as caught:
    launch(program, Processes(echo=False))
  with open(caught.value.log) as log:
    assert 'about to fail' in log.read()


def test_log_of_a_good_program_without_a_folder_is_not_kept(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  program = Program('good')
  program.add(
    'caller',
    services.Caller,
    program.add('greeter', services.Greeter),
    program.add('tally', services.Tally),
  )
  launch(program, 'processes')
  assert os.listdir(tmp_path) == []


def test_log_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  program = Program('nowhere')
  program.add('bad', services.BadRun)
  with pytest.raises(UsageError, match='log folder'):
    launch(program, Processes(log_directory=str(tmp_path / 'file' / 'logs')))


class Talkative:
  """Prints more than a pipe holds."""

  def run(self) -> None:
    for _ in range(4000):
      print('x' * 100)


@pytest.mark.parametrize('log', ['/dev/full', '/nowhere/at.all'])
def test_a_log_that_can_not_be_written_stops_nobody(tmp_path, log):
  (tmp_path / 'talkative.log').symlink_to(log)
  program = Program('talkative')
  program.add('talkative', Talkative)
  with start(program, Processes(log_directory=str(tmp_path), echo=False)) as running:
    assert running.wait(30)


def test_killed_process_is_restarted(tmp_path):
  program = Program('phoenix')
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  tally = program.add('tally', services.Tally)
  node = Node('phoenix', restart=OnFailure(max_restarts=3, backoff=0.05))
  program.add(node, services.Phoenix, tally, 2, True)
  with start(program, 'processes') as running:
    client = running.client(tally)
    wait_for(lambda: running.wait(0.02) or client.total() == 3)


def test_restarts_before_a_long_life_are_forgiven(tmp_path):
  program = Program('phoenix')
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  tally = program.add('tally', services.Tally)
  restart = OnFailure(max_restarts=1, backoff=0.01, forgiven_after=0.0)
  program.add(Node('phoenix', restart=restart), services.Phoenix, tally, 4)
  with start(program, 'threads') as running:
    client = running.client(tally)
    wait_for(lambda: running.wait(0.02) or client.total() == 5)


def test_refused_node_is_not_restarted():
  program = Program('picky')
  program.add(Node('picky', restart=OnFailure(backoff=0.01)), services.Picky)
  screen = io.StringIO()
  running = start(program, 'processes', terminal=Terminal(Console(file=screen)))
  with pytest.raises(NodeFailed, match='not with me') as caught, running:
    running.wait()
  assert caught.value.refused and 'restart' not in screen.getvalue()


def test_service_that_is_restarted_serves_again(tmp_path):
  program = Program('service')
  node = Node('victim', restart=OnFailure(max_restarts=50, backoff=0.1))
  victim = program.add(node, services.Forever, 'victim', str(tmp_path / 'closed'))
  with start(program, 'processes') as running:
    client = running.client(victim)
    lives = [client.pid()]

    def serves_again() -> bool:
      with contextlib.suppress(CourierError):
        return with_deadline(client.pid, 1.0)() not in lives
      return False

    for _ in range(2):
      os.kill(lives[-1], signal.SIGKILL)
      wait_for(lambda: running.wait(0.02) or serves_again())
      lives.append(client.pid())
  assert len(set(lives)) == 3


def test_threads_of_libraries_follow_the_declared_cpus():
  environment = process_environment(
    Resources(cpus=1), {'XLA_FLAGS': '--a', 'HOME': '/'}
  )
  assert environment['OMP_NUM_THREADS'] == environment['NPROC'] == '1'
  assert environment['XLA_FLAGS'] == '--a --xla_cpu_multi_thread_eigen=false'
  assert environment['JAX_PLATFORMS'] == 'cpu'
  assert environment['HOME'] == '/'
  many = process_environment(Resources(cpus=4, gpus=1), {})
  assert many['OMP_NUM_THREADS'] == '4'
  assert 'JAX_PLATFORMS' not in many and 'XLA_FLAGS' not in many


def test_declared_environment_comes_last():
  resources = Resources(environment={'JAX_PLATFORMS': 'cuda', 'MINE': '1'})
  environment = process_environment(resources, {})
  assert environment['JAX_PLATFORMS'] == 'cuda'
  assert environment['MINE'] == '1'


def test_each_unit_sees_its_own_gpus(tmp_path, monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
  program = Program('accelerated')
  seen = {}
  for name, gpus in (('first', 2), ('second', 1), ('none', 0)):
    node = Node(name, resources=Resources(gpus=gpus))
    seen[name] = program.add(node, services.Seer)
  with start(program, 'processes') as running:
    found = {
      name: running.client(node).environment('CUDA_VISIBLE_DEVICES')
      for name, node in seen.items()
    }
  assert found == {'first': '4,5', 'second': '6', 'none': ''}


def test_more_gpus_than_there_are(monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  program = Program('accelerated')
  program.add(Node('greeter', resources=Resources(gpus=2)), services.Greeter)
  with pytest.raises(
    UsageError, match=r'needs 2 GPUs \(greeter 2\), this machine has 1'
  ):
    launch(program, 'processes')


def test_colocated_nodes_add_up_what_they_need():
  both = unit_resources((Resources(cpus=1, gpus=1), Resources(cpus=2)))
  assert (both.cpus, both.gpus) == (3, 1)
