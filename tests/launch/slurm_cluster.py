"""A Slurm cluster of three nodes on this machine: the real daemons, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_DAEMONS = ('munged', 'slurmctld', 'slurmd')
_SBIN = os.pathsep.join(['/usr/sbin', '/usr/local/sbin'])
NODES = ('n1', 'n2', 'n3')
CPUS, MEMORY, GPUS = 64, 16000, 2  # of each node, whatever this machine has

_CONF = """
ClusterName=callsheet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.sock
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ReturnToService=2
SlurmdTimeout=5
KillWait=2
SchedulerParameters=sched_min_interval=0,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{range}] CPUs={cpus} \
RealMemory={memory} Gres=gpu:{gpus} Feature=fast State=UNKNOWN
PartitionName=main Nodes=n[1-3] Default=YES MaxTime=60 DefMemPerCPU=100
PartitionName=pair Nodes=n[1-2] MaxTime=60 DefMemPerCPU=100
"""


def missing() -> str:
  """Why no cluster can be started here; empty if one can."""
  lacking = [name for name in _DAEMONS if _find(name) is None]
  if lacking:
    return f'no {", ".join(lacking)}: apt-get install slurm-wlm munge'
  return '' if os.geteuid() == 0 else 'the daemons of Slurm need root'


class Cluster:
  """munged, slurmctld and three slurmd, in a folder of their own.

  Args:
    folder: an empty one; its path must be short, for sockets are in it.
  """

  def __init__(self, folder: Path) -> None:
    self._folder = folder
    self.environment = {'SLURM_CONF': str(folder / 'slurm.conf')}
    self._daemons: dict[str, psutil.Process] = {}

  def start(self) -> None:
    folder = self._folder
    folder.chmod(0o755)  # munged insists on who may write above its socket.
    ports = _free_ports(4)
    for name in ('state', *(f'spool_{node}' for node in NODES)):
      (folder / name).mkdir()
    key = folder / 'key'
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    conf = _CONF.format(
      host=socket.gethostname(),
      folder=folder,
      ports=ports,
      range=f'{ports[1]}-{ports[3]}',
      cpus=CPUS,
      memory=MEMORY,
      gpus=GPUS,
    )
    (folder / 'slurm.conf').write_text(conf)
    (folder / 'cgroup.conf').write_text('CgroupPlugin=cgroup/v1\n')
    devices = ('/dev/null', '/dev/zero')  # Slurm wants devices, nobody opens them.
    gres = [f'Name=gpu Flags=nvidia_gpu_env File={device}\n' for device in devices]
    (folder / 'gres.conf').write_text(''.join(gres))
    own = {name: str(folder / f'munge.{name}') for name in ('pid', 'log', 'seed')}
    munged = ['munged', '--foreground', '--force', '--key-file', str(key)]
    munged += ['--socket', str(folder / 'munge.sock'), '--pid-file', own['pid']]
    self._run(*munged, '--log-file', own['log'], '--seed-file', own['seed'])
    _until(lambda: (folder / 'munge.sock').exists(), 'munged')
    self._run('slurmctld', '-D', '-c', '-f', self.environment['SLURM_CONF'])
    for node in NODES:
      self.start_node(node)
    _until(
      lambda: self.ask('sinfo', '-h', '-o%T %D', '-pmain') == 'idle 3\n', 'the nodes'
    )

  def start_node(self, node: str) -> None:
    """Becomes no child of ours: what tests leave behind is told by our children."""
    pid = self._folder / f'slurmd_{node}.pid'
    pid.unlink(missing_ok=True)
    path = _find('slurmd')
    assert path is not None
    conf = self.environment['SLURM_CONF']
    subprocess.run([path, '-N', node, '-f', conf], check=True, capture_output=True)
    _until(lambda: pid.exists() and pid.read_text().strip() != '', node)
    self._daemons[node] = psutil.Process(int(pid.read_text()))

  def lose_node(self, node: str) -> None:
    """The node and all that runs there are gone at once, as if its power had failed."""
    daemon = self._daemons.pop(node)
    daemon.kill()
    for process in self._on(node):
      with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    daemon.wait()

  def _on(self, node: str) -> list[psutil.Process]:
    """What runs in steps on the node, those that watch over it first."""
    watching: list[psutil.Process] = []
    working: list[psutil.Process] = []
    for process in psutil.process_iter():
      with contextlib.suppress(psutil.Error):
        if self.belongs(process, node):
          working.append(process)
          watching += [p for p in process.parents() if 'slurmstepd' in p.name()]
    return [*watching, *working]

  def belongs(self, process: psutil.Process, node: str | None = None) -> bool:
    """Whether a process runs in a step of this cluster, on this node if one is named.

    Raises:
      psutil.Error: it is gone, or nobody may ask.
    """
    its = process.environ()
    here = its.get('SLURM_CONF') == self.environment['SLURM_CONF']
    on = its.get('SLURMD_NODENAME')
    return here and on is not None and node in (None, on)

  def bring_back(self, node: str) -> None:
    # What Slurm still believes to run there is over.
    update = ('scontrol', 'update', f'NodeName={node}')
    self.ask(*update, 'State=DOWN', 'Reason=lost')
    self.start_node(node)
    self.ask(*update, 'State=RESUME')
    _until(lambda: self.ask('sinfo', '-h', '-o%T %D', '-pmain') == 'idle 3\n', node)

  def jobs(self) -> str:
    return self.ask('squeue', '-h', '-o%i %j %T')

  def ask(self, *command: str) -> str:
    done = subprocess.run(
      command, env={**os.environ, **self.environment}, capture_output=True, timeout=20
    )
    return done.stdout.decode()

  def cancel(self) -> None:
    """Ends every job."""
    for line in self.jobs().splitlines():
      self.ask('scancel', line.split()[0].partition('+')[0])

  def stop(self) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.cancel()
      _until(lambda: not self.jobs(), 'the jobs')
    for daemon in reversed(self._daemons.values()):
      with contextlib.suppress(psutil.NoSuchProcess):
        daemon.send_signal(signal.SIGTERM)
    for daemon in self._daemons.values():
      try:
        daemon.wait(10)
      except psutil.TimeoutExpired:
        daemon.kill()
        daemon.wait()

  def _run(self, daemon: str, *arguments: str) -> None:
    path = _find(daemon)
    assert path is not None
    with (self._folder / f'{daemon}.out').open('ab') as output:
      self._daemons[daemon] = psutil.Popen(
        [path, *arguments], stdout=output, stderr=output, start_new_session=True
      )


def cluster(folder: Path) -> Iterator[Cluster]:
  """A cluster that is up, and is stopped afterwards."""
  running = Cluster(folder)
  try:
    running.start()
    yield running
  finally:
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _find(name: str) -> str | None:
  return shutil.which(name) or shutil.which(name, path=_SBIN)


def _free_ports(count: int) -> list[int]:
  """Free ports in a row; another process of the tests looks for others."""
  places = range(17000, 30000, count)
  for index in range(len(places)):
    first = places[(os.getpid() + index) % len(places)]
    with contextlib.ExitStack() as stack:
      try:
        for port in range(first, first + count):
          probe = stack.enter_context(socket.socket())
          probe.bind(('127.0.0.1', port))
      except OSError:
        continue
      return list(range(first, first + count))
  raise AssertionError('no free ports')


def _until(condition, what: str) -> None:
  until = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < until, f'{what} did not come in time'
    time.sleep(0.05)
