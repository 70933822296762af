"""Launchpad: both directions of moving between it and us, and what is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from callsheet import Node, OnFailure, Program, Resources, call_async, with_deadline
from callsheet.errors import (
  DeadlineExceeded,
  NodeFailed,
  NotSendable,
  RemoteError,
  RemoteTraceback,
  Unavailable,
  UsageError,
)
from callsheet.launch import launch, start
from callsheet.launch.launchpad import Launchpad, adopt, client, foreign
from tests.launch import services
from tests.launch.conftest import wait_for
from tests.launch.launchpad_programs import Arrays, Asker, Deaf, Grasping, Patient

ROOT = Path(__file__).parents[2]
needs_launchpad = pytest.mark.skipif(
  sys.version_info[:2] != (3, 10), reason='dm-launchpad is for Python 3.10 alone'
)


@contextlib.contextmanager
def theirs(
  name: str, launch_type: str, path: Path
) -> Iterator[subprocess.Popen[bytes]]:
  """A user's Launchpad program, in a process that nothing outlives."""
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  module = 'tests.launch.launchpad_programs'
  process = subprocess.Popen(
    [sys.executable, '-m', module, name, launch_type, str(path)],
    cwd=ROOT,
    env=environment,
    start_new_session=True,
  )
  try:
    yield process
  finally:
    children = []
    if process.poll() is None:
      children = psutil.Process(process.pid).children(recursive=True)
      process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(15)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=10)


def patiently(condition: Callable[[], bool]) -> None:
  """Several processes import TensorFlow before it can come true."""
  until = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < until
    time.sleep(0.05)


@needs_launchpad
@pytest.mark.timeout(120)
@pytest.mark.parametrize('launch_type', ['local_mp', 'local_mt'])
def test_our_service_in_their_program(launch_type, tmp_path):
  path = tmp_path / 'seen'
  with theirs('ours_in_theirs', launch_type, path) as process:
    assert process.wait(60) == 0
  # 1000 * 2 * i, and twice 0 + 1 + 2 + 3.
  assert sorted(path.read_text().splitlines()) == ['[0, 2000, 4000, 12] True', 'closed']


@needs_launchpad
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
  ('name', 'launch_type'),
  [('compiled', 'local_mp'), ('compiled', 'local_mt'), ('phoenix', 'local_mp')],
)
def test_a_compiled_program_ends_theirs_too(name, launch_type, tmp_path):
  path = tmp_path / 'seen'
  with theirs(name, launch_type, path) as process:
    assert process.wait(60) == 0
  assert sorted(path.read_text().splitlines()) == ['held', 'told']


@needs_launchpad
@pytest.mark.timeout(120)
def test_their_ctrl_c_stops_a_compiled_program_in_order(tmp_path):
  path = tmp_path / 'closed'
  with theirs('plain', 'local_mp', path) as process:
    started = Path(f'{path}.started')
    patiently(lambda: started.exists() and len(started.read_text()) == 5)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
  closed = path.read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']


@needs_launchpad
@pytest.mark.timeout(120)
def test_their_running_nodes_called_from_ours(tmp_path):
  path = tmp_path / 'addresses'
  with theirs('couriers', 'local_mp', path):
    patiently(lambda: path.exists() and path.read_text().endswith('\n'))
    bare, proof = path.read_text().split()
    program = Program('calls')
    tally = program.add('tally', services.Tally)
    program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
    program.add('caller', Caller, foreign(f'grpc://{bare}'), foreign(proof), tally)
    with start(program, 'processes') as running:
      wait_for(lambda: running.wait(0.02) or len(running.client(tally).notes()) == 8)
      notes = dict(running.client(tally).notes())
  assert notes['list'] == [1, 2, 1, 2]
  for refused in ('array', 'scalar', 'nested'):
    kind, text = notes[refused]
    assert kind is NotSendable
    assert 'holds an array' in text and 'array_proof' in text
  kind, text = notes['their error']
  assert kind is RemoteError
  assert 'on purpose' in text
  assert notes['late'][0] is DeadlineExceeded
  np.testing.assert_array_equal(notes['arrays'], np.arange(1000) * 6)
  assert notes['own error'] == (KeyError, RemoteTraceback)


class Caller:
  """Calls two of Launchpad's nodes in every way."""

  def __init__(self, bare: Arrays, proof: Arrays, tally: services.Tally) -> None:
    self._bare, self._proof, self._tally = bare, proof, tally

  def run(self) -> None:
    note = self._tally.note
    note(('list', self._bare.double([1, 2])))
    wrong = {
      'array': lambda: self._bare.double(np.zeros(2)),
      'scalar': lambda: self._bare.double(np.float32(1)),
      'nested': lambda: self._bare.scaled({'a': (1, [np.zeros(2)])}),
      'their error': self._bare.fail,
      'late': lambda: with_deadline(self._bare.sleep, 0.2)(5.0),
    }
    for name, call in wrong.items():
      try:
        note((name, call()))
      except Exception as error:
        note((name, (type(error), str(error))))
    double = call_async(self._proof.double, np.arange(1000))
    note(('arrays', self._proof.scaled({'a': double.result()}, by=3)['a']))
    try:
      self._proof.fail()
    except KeyError as error:
      note(('own error', (type(error), type(error.__cause__))))


@needs_launchpad
def test_nobody_at_a_foreign_address():
  nobody = foreign('grpc://localhost:1', deadline=0.3)
  with pytest.raises(Unavailable, match=r'no Launchpad node answers at localhost:1 '):
    nobody.double([1])
  again = pickle.loads(pickle.dumps(nobody))
  assert repr(again) == '<client of the Launchpad node at localhost:1>'


@needs_launchpad
@pytest.mark.parametrize('address', ['localhost', 'grpc://localhost:', ':3', ''])
def test_no_address(address):
  with pytest.raises(UsageError, match='is no address of a courier node'):
    foreign(address)


@needs_launchpad
@pytest.mark.timeout(60)
def test_their_class_in_our_program(tmp_path):
  path = tmp_path / 'seen'
  program = Program('adopted')
  arrays = program.add('arrays', adopt(Arrays))
  program.add(Node('asker', ends_program=True), adopt(Asker), arrays, str(path))
  program.add('patient', adopt(Patient), str(path))
  program.add('deaf', adopt(Deaf))
  launch(program, 'processes')
  assert sorted(path.read_text().splitlines()) == ['[0, 2000, 4000, 12] True', 'told']


@needs_launchpad
def test_a_class_that_wants_their_server():
  program = Program('grasping')
  program.add('grasping', adopt(Grasping))
  with pytest.raises(NodeFailed, match='leave its method set_courier_server out'):
    launch(program, 'processes')


def test_futures_of_a_plain_object():
  arrays = client(Arrays())
  assert arrays.double(2) == 4
  assert arrays.futures.double(3).result() == 6
  assert client(arrays) is arrays
  with pytest.raises(AttributeError):
    arrays.missing  # noqa: B018


@needs_launchpad
@pytest.mark.timeout(120)
def test_threads_of_launchpad(tmp_path):
  program = services.ordered(str(tmp_path / 'closed'))
  with start(program, Launchpad('local_mt')) as running:
    pids = {running.client(node).pid() for node in ('learner', 'actor/0', 'replay')}
  assert len(pids) == 1 and os.getpid() not in pids
  closed = (tmp_path / 'closed').read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']


@needs_launchpad
@pytest.mark.timeout(120)
def test_output_to_files(tmp_path):
  program = Program('bad')
  with program.group('group'):
    program.add('bad', services.BadRun)
  backend = Launchpad(terminal='output_to_files', log_directory=str(tmp_path / 'logs'))
  with pytest.raises(NodeFailed) as caught:
    launch(program, backend)
  assert 'about to fail' in Path(caught.value.log).read_text()


@needs_launchpad
@pytest.mark.timeout(120)
def test_logs_and_a_killed_node(tmp_path, capfd):
  program = Program('killed')
  program.add('victim', services.Suicide, 0.2)
  program.add('bad', Chatty)
  with pytest.raises(NodeFailed, match='its process has ended') as caught:
    launch(program, Launchpad(log_directory=str(tmp_path / 'logs')))
  assert caught.value.node == 'victim'
  chatty = (tmp_path / 'logs' / 'bad.log').read_text()
  assert 'one line\nanother [victim] line\n' in chatty
  assert '[bad]' not in chatty and '\x1b' not in chatty
  assert 'one line' in capfd.readouterr().err


@needs_launchpad
@pytest.mark.timeout(120)
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path):
  path, temporary = tmp_path / 'closed', tmp_path / 'temp'
  temporary.mkdir()
  python_path = os.pathsep.join([str(ROOT), *sys.path])
  environment = {**os.environ, 'PYTHONPATH': python_path, 'TMPDIR': str(temporary)}
  command = ['-m', 'tests.launch.main', str(tmp_path / 'logs'), 'launchpad', 'ordered']
  process = subprocess.Popen(
    [sys.executable, *command, str(path)], cwd=ROOT, env=environment
  )
  try:
    started = Path(f'{path}.started')
    patiently(lambda: started.exists() and len(started.read_text()) == 5)
    children = psutil.Process(process.pid).children(recursive=True)
  finally:
    process.kill()
    process.wait()
  assert len(children) > 5
  _gone, alive = psutil.wait_procs(children, timeout=15)
  assert not alive
  assert not list(temporary.glob('callsheet-*'))


class Chatty:
  def __init__(self) -> None:
    print('one line')
    print('another [victim] line')


def many_kinds(kinds: int) -> Program:
  program = Program('kinds')
  program.add('learner', services.Greeter)
  with program.group('actor'):
    for index in range(2 * (kinds - 1)):
      resources = Resources(cpus=1, memory_gb=2 + index // 2)
      program.add(Node('actor', resources=resources), services.Greeter)
  return program


def test_dry_run_of_processes():
  assert Launchpad().dry_run(many_kinds(2).plan()) == (
    "lp.Program('kinds'), launch_type='local_mp', terminal='current_terminal'\n"
    'group learner: learner\n'
    'group actor: actor/0, actor/1\n'
    'node learner: cpus=1\n'
    'node actor/0: cpus=1 memory_gb=2\n'
    'node actor/1: cpus=1 memory_gb=2'
  )


def test_dry_run_of_vertex_ai():
  assert Launchpad('vertex_ai').dry_run(many_kinds(3).plan()) == (
    "lp.Program('kinds'), launch_type='vertex_ai'\n"
    'group learner: learner\n'
    'group actor: actor/0, actor/1, actor/2, actor/3\n'
    'workerpool0: 1 x (cpus=1): learner\n'
    'workerpool1: 2 x (cpus=1 memory_gb=2): actor/0, actor/1\n'
    'workerpool2: 2 x (cpus=1 memory_gb=3): actor/2, actor/3'
  )


def test_the_first_worker_pool_is_one_machine():
  program = Program('alike')
  for name in 'abc':
    program.add(name, services.Greeter)
  described = Launchpad('vertex_ai').dry_run(program.plan())
  assert 'workerpool0: 1 x (cpus=1): a\nworkerpool1: 2 x (cpus=1): b, c' in described


def test_too_many_worker_pools():
  plan = many_kinds(5).plan()
  with pytest.raises(
    UsageError, match=r'needs 5 worker pools, Vertex AI takes at most 4'
  ):
    Launchpad('vertex_ai').dry_run(plan)


@needs_launchpad
def test_vertex_ai_is_for_a_dry_run():
  with pytest.raises(UsageError, match=r'xmanager \(pip install xmanager\)'):
    launch(many_kinds(2), Launchpad('vertex_ai'))


def restarting() -> Program:
  program = Program('restarting')
  program.add(Node('phoenix', restart=OnFailure()), services.Greeter)
  return program


def needing(resources: Resources) -> Program:
  program = Program('needing')
  program.add(Node('greedy', resources=resources), services.Greeter)
  return program


@needs_launchpad
@pytest.mark.parametrize(
  ('backend', 'program', 'message'),
  [
    (Launchpad('local'), many_kinds(2), r"no launch type 'local'; there are local_mp"),
    (Launchpad(terminal='vt100'), many_kinds(2), r"no terminal 'vt100'; .*xterm"),
    (Launchpad('local_mt'), restarting(), r"'phoenix' has OnFailure.*can not be rest"),
    (Launchpad(), needing(Resources(hosts=2)), r"'greedy' asks for 2 hosts"),
    (
      Launchpad(),
      needing(Resources(gpus=99)),
      r"'needing' needs 99 GPUs \(greedy 99\), this machine has",
    ),
    (Launchpad(), needing(Resources(cpus=9999)), r"'greedy' asks for 9999 cpus; this"),
  ],
)
def test_refused_before_anything_is_started(
  backend: Launchpad, program: Program, message: str
):
  with pytest.raises(UsageError, match=message):
    launch(program, backend)


def test_launchpad_is_missing(monkeypatch: pytest.MonkeyPatch):
  found: Callable[[str], object] = lambda name: None  # noqa: E731
  monkeypatch.setattr('importlib.util.find_spec', found)
  with pytest.raises(UsageError, match=r'pip install .*dm-launchpad==0\.5\.2'):
    launch(many_kinds(2), 'launchpad')
