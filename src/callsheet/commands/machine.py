"""What this machine gives to a run: cores, files, ports, shared memory."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Folder:
  """A place for files.

  Attributes:
    path: absolute.
    system: of its files: 'ext4', 'tmpfs', 'nfs'.
    free: bytes.
    error: why nothing can be written, or no unix socket be made; empty if both can.
  """

  path: str
  system: str
  free: int
  error: str


def cores() -> set[int]:
  """The cores that this process may run on."""
  return os.sched_getaffinity(0)


def quota() -> float | None:
  """Cores of the processors' time that a container is held to; None for no limit."""
  with contextlib.suppress(OSError, ValueError):
    with open('/sys/fs/cgroup/cpu.max') as file:
      most, period = file.read().split()
    return None if most == 'max' else int(most) / int(period)
  return None


def open_files() -> tuple[int, int]:
  """How many files a process may have open, and how far that limit may be raised."""
  return resource.getrlimit(resource.RLIMIT_NOFILE)


def loopback() -> str:
  """Why a program here can't reach itself at 127.0.0.1; empty if it can."""
  try:
    with socket.create_server(('127.0.0.1', 0)) as server:
      socket.create_connection(server.getsockname(), timeout=5).close()
  except OSError as error:
    return str(error)
  return ''


def port_error(port: int, host: str = '127.0.0.1') -> str:
  """Why a port can't be listened at; empty if it can."""
  try:
    socket.create_server((host, port)).close()
  except OSError as error:
    return error.strerror or str(error)
  return ''


def shared_memory() -> int | None:
  """Bytes that /dev/shm may hold; None if there is none."""
  try:
    return shutil.disk_usage('/dev/shm').total
  except OSError:
    return None


def memory_error() -> str:
  """Why two processes can't share memory; empty if they can."""
  try:
    os.close(os.memfd_create('callsheet'))
  except (AttributeError, OSError) as error:
    return str(error)
  return ''


def folder(path: str, with_socket: bool = False) -> Folder:
  """Looks at a folder, or at the nearest one above that exists, and leaves nothing.

  Args:
    path: of the folder.
    with_socket: whether unix sockets shall be made in it, too.
  """
  path = os.path.abspath(path)
  there = path
  while not os.path.isdir(there) and there != '/':
    there = os.path.dirname(there)
  error = ''
  try:
    with tempfile.TemporaryDirectory(dir=there, prefix='callsheet-') as inside:
      if with_socket:
        with socket.socket(socket.AF_UNIX) as listener:
          # As the address of a node is, in a program of hundreds.
          listener.bind(os.path.join(inside, '100'))
  except OSError as caught:
    error = caught.strerror or str(caught)
  return Folder(path, _system_of(there), shutil.disk_usage(there).free, error)


def _system_of(path: str) -> str:
  """The kind of file system that a folder is on."""
  found = ('', 'unknown')
  with contextlib.suppress(OSError), open('/proc/mounts') as mounts:
    for line in mounts:
      _, place, system, *_ = line.split()
      place = place.replace('\\040', ' ')
      inside = path == place or path.startswith(place.rstrip('/') + '/')
      if inside and len(place) >= len(found[0]):
        found = place, system
  return found[1]


def python() -> dict[str, Any]:
  """Of this interpreter: `version` as three numbers, `executable`, `system`."""
  return {
    'version': tuple(sys.version_info[:3]),
    'executable': sys.executable,
    'system': f'{platform.system()} {platform.machine()}',
  }


def has_gpu() -> bool:
  """Whether NVIDIA's driver shows a GPU."""
  with contextlib.suppress(OSError):
    return bool(os.listdir('/proc/driver/nvidia/gpus'))
  return False
