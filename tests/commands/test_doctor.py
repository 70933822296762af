"""`callsheet doctor`: what it finds, and what it makes of that."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys

import pytest

from callsheet.commands import diagnosis, machine, packages
from callsheet.commands.machine import Folder
from callsheet.commands.packages import Needed, Trial
from callsheet.launch import Processes, start
from callsheet.programs.program import Program
from tests.commands.conftest import Shell, refusal

GIB = 1 << 30
FINE = Trial('', True)


def need(name='x', wanted='>=2', extra='', applies=True, of='callsheet', found='2.1'):
  return Needed(name, wanted, extra, applies, of, found, bool(found) and found >= '2')


# What is made of it.


@pytest.mark.parametrize(
  ('version', 'system', 'standing', 'to_do'),
  [
    ((3, 9, 1), 'Linux x86_64', 'broken', 'take Python 3.10 to 3.13'),
    ((3, 10, 0), 'Linux x86_64', 'ok', ''),
    ((3, 13, 9), 'Linux x86_64', 'ok', ''),
    ((3, 14, 0), 'Linux x86_64', 'warning', 'not seen to work yet'),
    ((3, 12, 0), 'Darwin arm64', 'warning', 'Linux was'),
  ],
)
def test_python(version, system, standing, to_do):
  check = diagnosis.check_python(version, '/bin/python', system)
  assert check.standing == standing
  assert to_do in check.to_do and bool(to_do) == bool(check.to_do)


@pytest.mark.parametrize(
  ('needed', 'trial', 'standing', 'said'),
  [
    (None, FINE, 'broken', 'pip install .'),
    ([need(), need('y')], FINE, 'ok', 'all 2 that it needs'),
    ([need(found='')], Trial('No module x', False), 'broken', 'x missing'),
    ([need(found='1.0')], Trial('too old', False), 'broken', 'pip install "x>=2"'),
    ([need(found='1.0')], FINE, 'warning', 'not as declared: x 1.0'),
    ([need()], Trial('ImportError: libz', False), 'broken', 'ImportError: libz'),
    # What an extra lacks, Reverb, and what has no wheel here, keep nobody.
    ([need(), need(extra='e', found='')], FINE, 'ok', 'all 1'),
    ([need('dm-reverb', found=''), need()], FINE, 'ok', 'all 1'),
    ([need(applies=False, found=''), need('y')], FINE, 'ok', 'all 1'),
  ],
)
def test_packages(needed, trial, standing, said):
  check = diagnosis.check_packages(needed, trial)
  assert check.standing == standing
  assert said in f'{check.what} {check.to_do}'


def wheels(version, trials=(), **found):
  found = {name.replace('_', '-'): version for name, version in found.items()}
  return {c.name: c for c in diagnosis.check_wheels((*version, 0), found, dict(trials))}


def test_wheels_of_the_oldest_python():
  checks = wheels(
    (3, 10), {'dm-reverb': Trial('bad', False)}, dm_reverb='1', dm_launchpad='2'
  )
  assert checks['dm-launchpad'].standing == 'ok'
  assert checks['dm-reverb'].standing == 'warning'
  assert checks['dm-reverb'].what == '1, but its import ends: bad'
  assert checks['tensorflow-cpu'].what == 'not installed'
  assert 'pip install' in checks['tensorflow-cpu'].to_do


def test_no_wheels_above():
  for check in wheels((3, 12)).values():
    assert check.standing == 'ok' and not check.to_do
    assert check.what.startswith('no wheel for Python 3.12; all but --')


def jax(trial=FINE, devices=(('cpu', 'cpu'),), has_gpu=False, platforms=''):
  return diagnosis.check_jax(trial, '0.6.2', devices, has_gpu, platforms)


def test_jax():
  assert jax() == diagnosis.Check('jax', 'ok', '0.6.2: cpu')
  gpus = [('gpu', 'H100')] * 2
  assert jax(devices=gpus, has_gpu=True).what == '0.6.2: 2 x gpu (H100)'
  unused = jax(has_gpu=True)
  assert (unused.standing, 'jax[cuda12]==0.6.2' in unused.to_do) == ('warning', True)
  hidden = jax(has_gpu=True, platforms='cpu')
  assert hidden.to_do.startswith('JAX_PLATFORMS=cpu hides a GPU')
  broken = jax(Trial('RuntimeError: no backend', False))
  assert (broken.standing, 'no backend' in broken.what) == ('broken', True)


def test_network():
  fine, free, taken = diagnosis.check_network('', {80: '', 81: 'in use'})
  assert (fine.standing, free.standing, taken.standing) == ('ok', 'ok', 'warning')
  assert (free.name, taken.what) == ('port 80', 'in use')
  assert diagnosis.check_network('unreachable', {})[0].standing == 'broken'


def test_shared_memory():
  assert diagnosis.check_shared_memory(2 * GIB, '').standing == 'ok'
  docker = diagnosis.check_shared_memory(64 << 20, '')
  assert (docker.standing, docker.what) == ('warning', '/dev/shm 64 MiB')
  assert '--backend=ray does' in docker.to_do
  assert diagnosis.check_shared_memory(None, '').what == 'no /dev/shm'
  assert 'copied' in diagnosis.check_shared_memory(2 * GIB, 'no such call').to_do


@pytest.mark.parametrize(
  ('soft', 'hard', 'actors', 'standing', 'to_do'),
  [
    (1024, 4096, 100, 'ok', ''),
    (-1, -1, 10**6, 'ok', ''),
    (256, 4096, 100, 'warning', 'ulimit -n 4096 (it has room for 57 actors)'),
    (256, -1, 100, 'warning', 'ulimit -n unlimited'),
    (256, 256, 100, 'warning', 'room for 57 actors: raise the hard limit, 256'),
    (20, 20, 1, 'broken', 'room for 0 actors'),
  ],
)
def test_open_files(soft, hard, actors, standing, to_do):
  check = diagnosis.check_open_files(soft, hard, actors)
  assert check.standing == standing
  assert to_do in check.to_do and bool(to_do) == bool(check.to_do)


def test_folders():
  def check(free=2 * GIB, error=''):
    folder = Folder('/t', 'nfs', free, error)
    return diagnosis.check_folder('temporary files', folder, 'TMPDIR=/tmp')

  assert check() == diagnosis.Check(
    'temporary files', 'ok', '/t on nfs, 2.0 GiB free', ''
  )
  assert (check(free=1 << 20).standing, check(error='full').standing) == (
    'warning',
    'broken',
  )
  assert check(error='full').what.endswith(': full')


def test_threads():
  fine = diagnosis.check_threads(8, 2.5, {'OMP_NUM_THREADS': '1'})
  assert fine.standing == 'ok'
  assert fine.what.startswith('8 cores, of which a container may use 2.5; ')
  many = diagnosis.check_threads(1, None, {'MKL_NUM_THREADS': '4'})
  assert (many.standing, many.what) == ('warning', 'one core; MKL_NUM_THREADS=4')
  assert many.to_do.startswith('unset MKL_NUM_THREADS')


def test_extras():
  needed = [
    need('base'),
    need('base', extra='whole'),
    need('inner', extra='whole', of='base'),
    need('lost', extra='half', found=''),
    need('there', extra='half'),
    need('old', extra='none', applies=False, found=''),
    need('z', extra='dev', found=''),
  ]
  assert diagnosis.check_extras(needed, (3, 13)) == [
    diagnosis.Check('whole', 'ok', 'inner 2.1'),
    diagnosis.Check(
      'half', 'ok', 'not installed: lost', 'pip install "callsheet[half]"'
    ),
    diagnosis.Check('none', 'ok', 'no wheel for Python 3.13'),
  ]


# What is found.


def test_what_the_metadata_asks_for():
  found = {(each.extra, each.name): each for each in packages.needed() or ()}
  assert found['', 'jax'].fits and found['', 'jax'].of == 'callsheet'
  assert found['', 'jax'].found == importlib.metadata.version('jax')
  assert found['', 'dm-reverb'].applies == (sys.version_info < (3, 11))
  assert found['atari', 'ale-py'].wanted and ('', 'ale-py') not in found
  assert found['box2d', 'box2d'].of == 'gymnasium'
  assert packages.needed('no-such-distribution') is None


def test_what_is_tried_out_may_end_or_write_what_it_likes():
  trials = packages.try_out(
    {
      'fine': 'print("first"); print("last")',
      'raises': 'raise ValueError("no")',
      'killed': 'import os; os.kill(os.getpid(), 9)',
    }
  )
  assert trials == {
    'fine': Trial('last', True),
    'raises': Trial('ValueError: no', False),
    'killed': Trial('it ended with code -9', False),
  }


def test_folder_that_is_looked_at(tmp_path):
  found = machine.folder(str(tmp_path / 'not' / 'yet'), with_socket=True)
  assert (found.path, found.error) == (str(tmp_path / 'not' / 'yet'), '')
  assert found.free > 0 and found.system != 'unknown'
  assert list(tmp_path.iterdir()) == []
  assert machine.folder('/proc/x').error
  deep = tmp_path / ('long' * 25)
  deep.mkdir()
  assert 'too long' in machine.folder(str(deep), with_socket=True).error
  assert machine.folder(str(deep)).error == ''


def test_port_that_is_taken():
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    assert 'in use' in machine.port_error(port)
  assert machine.port_error(port) == ''
  assert machine.loopback() == ''


class Idle:
  def run(self, stop) -> None:
    stop.wait()


def test_a_node_takes_no_more_files_of_its_launcher_than_an_actor_is_said_to():
  def open_files(nodes: int) -> int:
    program = Program('idle')
    for index in range(nodes):
      program.add(f'idle{index}', Idle)
    with start(program, Processes(echo=False)):
      return len(os.listdir('/proc/self/fd'))

  few, many = open_files(1), open_files(4)
  assert 0 < many - few <= 3 * diagnosis.FILES_OF_AN_ACTOR
  assert few <= diagnosis.FILES_OF_A_RUN


# The command.


@pytest.mark.timeout(180)
def test_here_it_can_run(shell: Shell):
  code, out, err = shell.run('doctor', '--num_actors=3')
  assert (code, err) == (0, ''), out
  lines = out.splitlines()
  for name in ('Python', 'packages', 'jax', 'loopback', 'open files', 'run folders'):
    assert any(name in line for line in lines if line.startswith(('ok', 'warning')))
  assert '; 3 actors take about ' in out
  assert any(line.startswith('atari ') for line in lines)
  assert lines[-1].startswith('callsheet run dqn can run here')
  assert os.listdir(shell.place) == ['tmp']


@pytest.mark.timeout(180)
def test_what_is_broken_is_said_and_in_the_exit_code(shell: Shell):
  shell.hide('haiku')
  shell.extra['JAX_PLATFORMS'] = 'nonsense'
  code, out, err = shell.run('doctor', '--runs_directory=/proc/x')
  assert (code, err) == (1, ''), out
  last = out.splitlines()[-1]
  assert last == 'nothing can run here yet: packages, jax, run folders'
  assert ': dm-haiku; ' in ' '.join(out.split())


def test_refused(capsys):
  assert 'right is: callsheet doctor' in refusal(capsys, 'doctor', 'me')
  assert refusal(capsys, 'doctor', '--ports=80,x').endswith("between, got 'x'")
