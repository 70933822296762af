"""A connection to a Ray cluster, of which a process can have but one."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from callsheet.errors import UsageError
from callsheet.launch.ray.bundles import Host

_PORT = 6379
# What a client says first in HTTP/2, which Ray's head speaks; it answers with settings.
_PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\x04\0\0\0\0\0'
_SETTINGS = 4
_REAP = 5.0  # seconds

_lock = threading.Lock()
_users = 0
_ours = False
_folder: str | None = None
_where: str | None = None
_processes: set[int] = set()


class Cluster:
  """The cluster that this process is connected to.

  Programs that run at a time share the connection; the last to close it ends it, unless
  somebody else had made it.

  Args:
    address: 'host:port' of the head, 'auto' for the cluster of this host; None for the
      one that RAY_ADDRESS names, or else one of this process's own.
    namespace: of the actors' names; None for one that nobody else has.
    cpus: what a cluster of this process's own has to count at least.
    limit: seconds that the head may take to answer.

  Raises:
    UsageError: Ray is not installed, or there is no such cluster.
  """

  def __init__(
    self, address: str | None, namespace: str | None, cpus: float, limit: float
  ) -> None:
    global _users, _ours, _folder, _where, _processes
    ray = import_ray()
    wanted = address or os.environ.get('RAY_ADDRESS') or None
    with _lock:
      if not ray.is_initialized():
        before = _children()
        if wanted is None:
          _folder = tempfile.mkdtemp(prefix='callsheet-')
        try:
          _connect(ray, wanted, namespace, cpus, limit, _folder)
        except BaseException:
          _remove_folder()
          raise
        _ours, _where = True, wanted
        _processes = _children() - before
      elif _ours and wanted != _where:
        raise UsageError(
          f'this process is connected to the Ray cluster {_where or "of its own"} '
          f'already, and can not be to {wanted or "one of its own"} at the same time'
        )
      _users += 1
      self.local = _folder is not None
    self._closed = False

  def hosts(self) -> tuple[Host, ...]:
    """The hosts that are alive."""
    import ray

    return tuple(
      Host(node['NodeManagerAddress'], node['Resources'], node.get('Labels') or {})
      for node in ray.nodes()
      if node['Alive']
    )

  def head(self) -> str:
    """The address of the head's host."""
    import ray

    address: str = ray.get_runtime_context().gcs_address
    return address.rpartition(':')[0].strip('[]')

  def close(self) -> None:
    """Leaves the cluster; ends it if it was this process's own."""
    global _users, _ours
    import ray

    with _lock:
      if self._closed:
        return
      self._closed = True
      _users -= 1
      if _users == 0 and _ours:
        ray.shutdown()
        _ours = False
        _reap(_processes)
        _remove_folder()


def import_ray() -> Any:
  """The library.

  Raises:
    UsageError: it is not installed.
  """
  try:
    import ray
  except ImportError:
    raise UsageError(
      "the backend 'ray' needs Ray: pip install 'callsheet[ray]'"
    ) from None
  return ray


def _connect(
  ray: Any,
  address: str | None,
  namespace: str | None,
  cpus: float,
  limit: float,
  folder: str | None,
) -> None:
  options: dict[str, Any] = {'address': address}
  if address is None:
    options = {
      'address': 'local',
      'num_cpus': max(os.cpu_count() or 1, int(-(-cpus // 1))),
      'object_store_memory': 80
      * 2**20,  # The least that Ray takes; nothing is put there.
      'include_dashboard': False,
      '_node_ip_address': '127.0.0.1',
      '_temp_dir': folder,
    }
  else:
    _answers(address, limit)
  try:
    with _quiet():
      ray.init(
        namespace=namespace,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
      )
  except Exception as error:
    said = ' '.join(str(error).split())
    raise UsageError(
      f'the Ray cluster {address or "of this host"} can not be joined: {said}'
    ) from None


def _answers(address: str, limit: float) -> None:
  """Ray itself would wait for minutes, or end the process."""
  if '://' in address:
    raise UsageError(
      f'the launcher must run on a host of the Ray cluster, not reach it by '
      f"{address!r}: Ray(address='auto') there, or submit it as a job from here"
    )
  where = address
  if address == 'auto':
    where = os.environ.get('RAY_ADDRESS') or _noted_here()
    if not where:
      raise UsageError(
        'no Ray cluster runs on this host: `ray start --head`, or leave the address '
        'out for one that is started for the program'
      )
  host, _, port = where.rpartition(':') if ':' in where else (where, '', str(_PORT))
  if not port.isdigit():
    raise UsageError(f'{where!r} is no address of a Ray cluster: host:{_PORT}')
  begun = time.monotonic()
  try:
    with socket.create_connection((host.strip('[]'), int(port)), limit) as head:
      if os.environ.get('RAY_USE_TLS', '0') != '0':
        return
      head.settimeout(max(0.1, limit - (time.monotonic() - begun)))
      head.sendall(_PREFACE)
      answer = head.recv(9, socket.MSG_WAITALL)
  except OSError as error:
    raise UsageError(
      f'no Ray cluster at {where} within {limit:g} s: {error.strerror or error}; is '
      f'its head up (`ray start --head --port={port}`), and may this host reach it?'
    ) from None
  if len(answer) < 4 or answer[3] != _SETTINGS:
    raise UsageError(f'what answers at {where} is no Ray cluster')


def _noted_here() -> str:
  folder = os.environ.get('RAY_TMPDIR') or '/tmp'
  try:
    with open(os.path.join(folder, 'ray', 'ray_current_cluster')) as file:
      return file.read().strip()
  except OSError:
    return ''


# Of the environment: whether it reports home (here not), and whose a breakpoint is.
_CHANGED = ('RAY_USAGE_STATS_ENABLED', 'PYTHONBREAKPOINT')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Undoes what Ray does to its process beside connecting it."""
  main = threading.current_thread() is threading.main_thread()
  handler = signal.getsignal(signal.SIGTERM) if main else None
  before = {name: os.environ.get(name) for name in _CHANGED}
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name, None)
      if value is not None:
        os.environ[name] = value
    if main:
      signal.signal(signal.SIGTERM, handler)


def _remove_folder() -> None:
  global _folder
  if _folder is not None:
    shutil.rmtree(_folder, ignore_errors=True)
  _folder = None


def _children() -> set[int]:
  children: set[int] = set()
  for path in glob.glob('/proc/self/task/*/children'):
    with contextlib.suppress(OSError), open(path) as file:
      children.update(map(int, file.read().split()))
  return children


def _reap(processes: set[int]) -> None:
  """Ray ends the processes of its own cluster, but does not wait for them all."""
  until = time.monotonic() + _REAP
  for pid in processes:
    with contextlib.suppress(ChildProcessError):  # Ray did, for this one.
      while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
          os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
