"""What the slurm backend has of its own, on a cluster of real daemons."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from callsheet import Node, OnFailure, Program, Resources
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Running, Slurm, launch, start
from callsheet.launch.remote.ticket import carried_path
from callsheet.launch.slurm import allocation
from callsheet.launch.slurm.components import seconds
from tests.launch import services
from tests.launch.conftest import wait_for
from tests.launch.slurm_cluster import CPUS, GPUS, Cluster

pytestmark = pytest.mark.clusters

ROOT = Path(__file__).parents[2]


def mixed() -> Program:
  """Two kinds of resources, and one unit that is pinned."""
  program = Program('mixed')
  learner = Resources(cpus=4, memory_gb=1.0, gpus=1)
  program.add(Node('learner', resources=learner), services.Where)
  with program.group('actor', resources=Resources(cpus=2)):
    for _ in range(3):
      program.add('actor', services.Where)
  pinned = Resources(node_selector={'host': 'n3', 'constraint': 'fast'})
  program.add(Node('pinned', resources=pinned), services.Where)
  return program


def one(resources: Resources) -> Program:
  program = Program('one')
  program.add(Node('greeter', resources=resources), services.Greeter)
  return program


def variables(running: Running, program: Program, name: str) -> dict[str, str | None]:
  nodes = [node.name for node in program.plan().nodes]
  return {node: running.client(node).variable(name) for node in nodes}


def steps(cluster: Cluster) -> dict[str, str]:
  """The node that each unit's step is on."""
  lines = cluster.ask('squeue', '-h', '-s', '-o%j|%N').splitlines()
  return dict(line.strip().rsplit('|', 1) for line in lines)


def beats(running: Running, name: str) -> int:
  return running.client('tally').notes().count(name)


def test_units_are_placed_by_their_resources(on_slurm, tmp_path):
  program = mixed()
  with start(program, Slurm(log_directory=str(tmp_path / 'logs'))) as running:
    hosts = variables(running, program, 'SLURMD_NODENAME')
    cpus = variables(running, program, 'SLURM_CPUS_ON_NODE')
    devices = variables(running, program, 'CUDA_VISIBLE_DEVICES')
    platforms = variables(running, program, 'JAX_PLATFORMS')
    memory = on_slurm.ask('scontrol', 'show', 'job')
  actors = {host for name, host in hosts.items() if name.startswith('actor')}
  assert hosts['pinned'] == 'n3' and 'n3' not in actors
  assert hosts['learner'] not in actors, 'components share a node'
  assert cpus == {
    'learner': '4',
    'actor/0': '2',
    'actor/1': '2',
    'actor/2': '2',
    'pinned': '1',
  }
  # Slurm says which GPU, and nobody else sees any.
  assert devices.pop('learner') == '0' and set(devices.values()) == {''}
  assert platforms.pop('learner') is None and set(platforms.values()) == {'cpu'}
  assert 'cpu=4,mem=956M,node=1' in memory
  assert sorted(file.name for file in (tmp_path / 'logs').iterdir()) == [
    'actor-0.log',
    'actor-1.log',
    'actor-2.log',
    'learner.log',
    'pinned.log',
  ]


def test_units_with_gpus_have_them_alone(on_slurm):
  program = Program('gpus')
  with program.group('learner', resources=Resources(gpus=1)):
    program.add('a', services.Where)
    program.add('b', services.Where)
  with start(program, Slurm(options=('--nodelist=n2',))) as running:
    seen = variables(running, program, 'CUDA_VISIBLE_DEVICES')
  assert sorted(map(str, seen.values())) == ['0', '1']


def test_many_units_share_few_cores(on_slurm):
  program = Program('shared')
  with program.group('actor', resources=Resources(cpus=0.25)):
    for _ in range(6):
      program.add('actor', services.Where)
  with start(program, Slurm()) as running:
    variables(running, program, 'SLURMD_NODENAME')
    assert 'NumCPUs=2 ' in on_slurm.ask('scontrol', 'show', 'job')


def test_a_killed_unit_is_named(on_slurm):
  with pytest.raises(NodeFailed) as caught:
    launch(services.killed(), Slurm(echo=False))
  assert caught.value.node == 'victim'
  assert caught.value.reason == 'its process was killed by SIGKILL'


def test_a_killed_unit_is_restarted(on_slurm, tmp_path):
  program = Program('phoenix')
  program.add('hold', services.Forever, 'hold', str(tmp_path / 'closed'))
  tally = program.add('tally', services.Tally)
  node = Node('phoenix', restart=OnFailure(max_restarts=3, backoff=0.05))
  program.add(node, services.Phoenix, tally, 2, True)
  with start(program, Slurm()) as running:
    client = running.client(tally)
    wait_for(lambda: running.wait(0.02) or client.total() == 3)


def test_a_lost_node_moves_its_units(on_slurm, tmp_path):
  program = services.beating('a', 'b', restart=True, pinned=False)
  backend = Slurm(nodes=3, silence=6.0, log_directory=str(tmp_path / 'logs'))
  try:
    with start(program, backend) as running:
      wait_for(lambda: running.wait(0.1) or beats(running, 'a') > 0)
      placed = steps(on_slurm)
      assert sorted(placed.values()) == ['n1', 'n2', 'n3']
      on_slurm.lose_node(placed['heart/a'])
      lost = beats(running, 'a')
      until = time.monotonic() + 60
      while beats(running, 'a') <= lost + 3:
        assert time.monotonic() < until, (tmp_path / 'logs/heart-a.log').read_text()
        running.wait(0.2)
      now = on_slurm.ask('squeue', '-h', '-s', '-o%j %N').splitlines()
      there = {line.split()[1] for line in now if line.startswith('heart/a ')}
      assert there - {placed['heart/a']}
  finally:
    on_slurm.bring_back(placed['heart/a'])


@pytest.mark.parametrize('restart', [False, True])
def test_cancelled_from_outside(on_slurm, restart):
  program = services.beating('a', restart=restart, pinned=False)
  with pytest.raises(NodeFailed, match=r'^node .* Slurm job \d+ (was|is)'):  # noqa: SIM117
    with start(program, Slurm(echo=False)) as running:
      wait_for(lambda: running.wait(0.1) or beats(running, 'a') > 0)
      on_slurm.ask('scancel', on_slurm.jobs().split()[0])
      running.wait(60)


def test_a_killed_launcher_leaves_no_job(on_slurm, tmp_path):
  path = tmp_path / 'closed'
  logs = str(tmp_path / 'logs')
  launcher = subprocess.Popen(
    [sys.executable, '-m', 'tests.launch.main', logs, 'slurm', 'ordered', str(path)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])},
    cwd=ROOT,
  )
  begun = Path(f'{path}.started')
  wait_for(lambda: begun.exists() and len(begun.read_text()) == 5)
  workers = []
  for process in psutil.process_iter():
    with contextlib.suppress(psutil.Error):
      named = 'callsheet.launch.remote.worker' in process.cmdline()
      if named and on_slurm.belongs(process):
        workers.append(process)
  assert len(workers) >= 5
  launcher.kill()
  launcher.wait()
  _, alive = psutil.wait_procs(workers, timeout=15)
  assert not alive
  wait_for(lambda: not on_slurm.jobs(), on_slurm.jobs)


def test_says_what_it_waits_for(on_slurm, monkeypatch):
  monkeypatch.setattr(allocation, '_SAY', 0.2)
  block = ('sbatch', '-N3', '--exclusive', '--wrap=sleep 60', '--output=/dev/null')
  on_slurm.ask(*block)
  wait_for(lambda: 'RUNNING' in on_slurm.jobs())
  try:
    with pytest.raises(UsageError, match=r'still waiting after 1 s: (Resources|Prior)'):
      Slurm(queue_limit=1.0).open(mixed().plan(), lambda node, line: None)
    assert len(on_slurm.jobs().splitlines()) == 1, 'what waits was not taken back'
  finally:
    on_slurm.ask('scancel', on_slurm.jobs().split()[0])


@pytest.mark.parametrize(
  ('resources', 'options', 'complaint'),
  [
    ({}, {'partition': 'gone'}, "no partition 'gone'; there are main, pair"),
    ({}, {'time_limit': '2:00:00'}, "'2:00:00' is longer .* allows: 1:00:00"),
    ({}, {'time_limit': 'soon'}, "time_limit='soon' is no time"),
    ({}, {'nodes': 0}, 'nodes=0'),
    ({'cpus': CPUS + 1}, {}, f'asks for {CPUS + 1} cpus; the largest .* has {CPUS}'),
    ({'gpus': GPUS + 1}, {}, f'asks for {GPUS + 1} gpus; .* has {GPUS}'),
    ({'memory_gb': 100}, {}, 'asks for 95368 MiB of memory; .* has 16000'),
    ({'tpu': 'v5e'}, {}, r'wants a TPU \(v5e\)'),
    ({'node_selector': {'host': 'n9'}}, {}, "wants host 'n9'; .* has n1, n2, n3"),
    ({'node_selector': {'host': 'n3'}}, {'partition': 'pair'}, 'has n1, n2'),
    ({'node_selector': {'constraint': 'slow'}}, {}, "wants nodes with 'slow'"),
    ({'node_selector': {'zone': 'a'}}, {}, "selects nodes by 'zone'; .* host, constr"),
    ({}, {'options': ('--no-such-option',)}, 'does not take the job: .*no-such-opt'),
    ({}, {'account': 'a\nb', 'comment': 'a\nb'}, 'is one line'),
  ],
)
def test_refusals(on_slurm, resources, options, complaint):
  plan = one(Resources(**resources)).plan()
  with pytest.raises(UsageError, match=complaint) as caught:
    Slurm(**options).open(plan, lambda node, line: None)
  assert '\n' not in str(caught.value).replace('a\\nb', '')
  assert not on_slurm.jobs()


def test_refuses_more_units_than_there_is_room_for(on_slurm):
  program = Program('crowd')
  with program.group('actor', resources=Resources(cpus=CPUS // 2)):
    for _ in range(7):
      program.add('actor', services.Where)
  with pytest.raises(UsageError, match=f'7 times {CPUS // 2} cpus .* has room for 6'):
    Slurm().open(program.plan(), lambda node, line: None)


def test_refuses_more_kinds_than_nodes(on_slurm):
  program = Program('kinds')
  for cpus in range(1, 5):
    program.add(Node(f'n{cpus}', resources=Resources(cpus=cpus)), services.Where)
  with pytest.raises(UsageError, match=r'4 kinds of Resources .* there are 3'):
    Slurm().open(program.plan(), lambda node, line: None)
  with start(program, Slurm(fold=True)) as running:
    assert set(variables(running, program, 'SLURM_CPUS_ON_NODE').values()) == {'4'}


def test_unreachable_controller(on_slurm, tmp_path, monkeypatch):
  text = Path(on_slurm.environment['SLURM_CONF']).read_text()
  conf = tmp_path / 'slurm.conf'
  conf.write_text(re.sub('SlurmctldPort=.*', 'SlurmctldPort=9', text))
  monkeypatch.setenv('SLURM_CONF', str(conf))
  with pytest.raises(UsageError, match=r'can not be reached|has not answered'):
    Slurm().open(mixed().plan(), lambda node, line: None)


def test_no_commands(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(UsageError, match=r"no 'salloc' .* apt-get install slurm-client"):
    Slurm().open(mixed().plan(), lambda node, line: None)


def test_inside_of_a_job(on_slurm, monkeypatch):
  monkeypatch.setenv('SLURM_JOB_ID', '7')
  monkeypatch.setenv('SLURM_JOB_CPUS_PER_NODE', '2(x2),1')
  with pytest.raises(UsageError, match=r'needs 11 cpus, Slurm job 7 .* has 5'):
    Slurm().open(mixed().plan(), lambda node, line: None)
  monkeypatch.setenv('SLURM_HET_SIZE', '2')
  with pytest.raises(UsageError, match='has 2 components, the program needs 3'):
    Slurm().open(mixed().plan(), lambda node, line: None)


def submit(program: Program, backend: Slurm) -> str:
  told = backend.submit(program.plan())
  match = re.match(r'Slurm job (\d+): ', told)
  assert match is not None
  assert f'scancel {match[1]}' in told
  return match[1]


@pytest.mark.parametrize('kinds', [1, 2])
def test_detached_job_runs_to_its_end(on_slurm, tmp_path, kinds):
  program = Program('detached')
  greeter = program.add('greeter', services.Greeter)
  tally = program.add('tally', services.Tally)
  node = Node('caller', resources=Resources(cpus=kinds))
  program.add(node, services.Caller, greeter, tally)
  folder = tmp_path / 'job'
  job = submit(program, Slurm(log_directory=str(folder)))
  assert folder.stat().st_mode & 0o777 == 0o700
  wait_for(lambda: not on_slurm.jobs(), lambda: (folder / 'job.log').read_text())
  shown = on_slurm.ask('scontrol', 'show', 'job', job)
  assert 'JobState=COMPLETED' in shown, (folder / 'job.log').read_text()
  assert (folder / 'logs' / 'caller.log').exists()


def test_detached_job_is_queued_again(on_slurm, tmp_path):
  path, folder = tmp_path / 'closed', tmp_path / 'job'
  program = services.ordered(str(path))
  job = submit(program, Slurm(log_directory=str(folder), requeue=True))
  begun = Path(f'{path}.started')
  wait_for(lambda: begun.exists() and len(begun.read_text()) == 5)
  # As Slurm does a minute before the time limit.
  on_slurm.ask('scancel', '--batch', '--signal=TERM', job)
  wait_for(lambda: 'PENDING' in on_slurm.jobs(), (folder / 'job.log').read_text)
  closed = path.read_text().split()
  assert closed == ['actor', 'actor', 'learner', 'replay', 'counter']
  # Slurm would wait for two minutes, in case something of the job is left.
  wait_for(lambda: on_slurm.ask('sinfo', '-h', '-o%T', '-pmain') == 'idle\n')
  time.sleep(3)
  on_slurm.ask('scontrol', 'update', f'JobId={job}', 'StartTime=now')
  wait_for(lambda: len(begun.read_text()) == 10, (folder / 'job.log').read_text)
  on_slurm.ask('scancel', job)
  wait_for(lambda: not on_slurm.jobs(), on_slurm.jobs)
  assert 'JobState=CANCELLED' in on_slurm.ask('scontrol', 'show', 'job', job)


def test_dry_run():
  path = os.pathsep.join(carried_path())
  worker = (
    f'env PYTHONPATH={path} PYTHONUNBUFFERED=1 python -m callsheet.launch.remote.worker'
  )
  backend = Slurm(
    'main', account='lab', time_limit='90', nodes=2, python='python', requeue=True
  )
  common = '--partition=main --account=lab --time=90'
  step = 'srun --jobid=JOB --het-group={} --job-name={} --nodes=1 --ntasks=1'
  rest = '--mem=0 --mpi=none --quiet'
  head, _, script = backend.dry_run(mixed().plan()).partition('\n\n')
  actors = [
    f'{step.format(1, f"actor/{index}")} --cpus-per-task=2 {rest} --gres=none '
    f'--exact {worker}'
    for index in range(3)
  ]
  assert head.splitlines() == [
    f'salloc --job-name=mixed {common} --nodes=1 --ntasks=1 --cpus-per-task=4 '
    f'--mem-per-cpu=239M --gpus-per-task=1 --no-kill : {common} --nodes=2-3 '
    f'--ntasks=3 --cpus-per-task=2 --no-kill : {common} --nodes=1 --ntasks=1 '
    '--cpus-per-task=1 --constraint=fast --nodelist=n3 --no-kill cat',
    f'{step.format(0, "learner")} --cpus-per-task=4 {rest} --gpus-per-task=1 '
    f'--exact {worker}',
    *actors,
    f'{step.format(2, "pinned")} --cpus-per-task=1 {rest} --gres=none --exact {worker}',
  ]
  golden = (Path(__file__).parent / 'slurm_job.sh').read_text()
  assert script == golden.replace('{path}', path)


def test_time_limits():
  assert seconds('90') == 5400
  assert seconds('1:30') == 90
  assert seconds('1:30:00') == 5400
  assert seconds('2-12') == 216000
  assert seconds('1-0:30') == 88200
  assert seconds('UNLIMITED') == float('inf')
