"""A network namespace for each pod, on a bridge, where names are those of a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from tests.launch.pods import Pod


def _ip(*words: str, batch: str | None = None) -> str:
  command = ['ip', *words, *(['-batch', '-'] if batch is not None else [])]
  done = subprocess.run(
    command, input=batch, capture_output=True, text=True, check=True, timeout=60
  )
  return done.stdout


@dataclass(frozen=True)
class Network:
  """A bridge, 10.88.n.1, and namespaces that are made as they are needed.

  Attributes:
    number: the n; several may be used on one machine.
  """

  number: int

  @property
  def address(self) -> str:
    """Of this process, as the pods reach it."""
    return f'10.88.{self.number}.1'

  @property
  def _bridge(self) -> str:
    return f'cspods{self.number}'

  @classmethod
  def make(cls, folder: Path) -> Network:
    """A new one, noted in the folder."""
    for number in range(1, 250):
      made = cls(number)
      try:
        _ip('link', 'add', made._bridge, 'type', 'bridge')
      except subprocess.CalledProcessError as error:
        if 'File exists' not in error.stderr:
          raise
        continue
      _ip('addr', 'add', f'{made.address}/24', 'dev', made._bridge)
      _ip('link', 'set', made._bridge, 'up')
      (folder / 'network.json').write_text(json.dumps(asdict(made)))
      return made
    raise RuntimeError('there are 249 such networks already')

  @classmethod
  def load(cls, folder: Path) -> Network:
    """The one of this folder."""
    return cls(**json.loads((folder / 'network.json').read_text()))

  def place(self, pods: Sequence[Pod], subdomain: str) -> None:
    """Gives the pods namespaces, addresses and names."""
    there = self._namespaces()
    for index, pod in enumerate(pods):
      pod.namespace = f'{self._bridge}-{index}'
      pod.ip = f'10.88.{self.number}.{index + 2}'
      if pod.namespace not in there:
        self._add(pod.namespace, pod.ip, index)
    names = ''.join(f'{p.ip} {p.hostname}.{subdomain} {p.hostname}\n' for p in pods)
    for pod in pods:
      folder = Path('/etc/netns', pod.namespace)
      folder.mkdir(parents=True, exist_ok=True)
      (folder / 'hosts').write_text(f'127.0.0.1 localhost\n{names}')

  def pids(self, index: int) -> list[int]:
    """The processes of a pod."""
    return [int(pid) for pid in _ip('netns', 'pids', f'{self._bridge}-{index}').split()]

  def close(self) -> None:
    """Takes everything away again."""
    for name in self._namespaces():
      _ip('link', 'del', self._port(int(name.rpartition('-')[2])))
      _ip('netns', 'del', name)
      shutil.rmtree(Path('/etc/netns', name), ignore_errors=True)
    _ip('link', 'del', self._bridge)

  def _namespaces(self) -> list[str]:
    listed = (line.split()[0] for line in _ip('netns', 'list').splitlines() if line)
    return [name for name in listed if name.startswith(f'{self._bridge}-')]

  def _port(self, index: int) -> str:
    return f'csp{self.number}x{index}'

  def _add(self, namespace: str, ip: str, index: int) -> None:
    port = self._port(index)
    _ip(
      batch=f'netns add {namespace}\n'
      f'link add {port} type veth peer name eth0 netns {namespace}\n'
      f'link set {port} master {self._bridge} up\n'
    )
    _ip(
      '-n',
      namespace,
      batch=f'link set lo up\naddr add {ip}/24 dev eth0\nlink set eth0 up\n',
    )


def why_not() -> str:
  """Why there can be no pods here; empty if there can."""
  if os.geteuid() != 0:
    return 'a network namespace for each pod needs root'
  for program in ('ip', 'unshare', 'mount', 'hostname'):
    if shutil.which(program) is None:
      return f'there is no {program!r} here: apt-get install iproute2'
  probe = f'cspodsprobe{os.getpid()}'
  try:
    _ip('netns', 'add', probe)
    _ip('netns', 'del', probe)
  except subprocess.CalledProcessError as error:
    return f'no network namespaces here: {error.stderr.strip()}'
  return ''
