"""Network namespaces on a bridge: hosts with addresses of their own, for one test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

_NETWORKS = range(250)


def _run(command: str) -> str:
  done = subprocess.run(
    command.split(), capture_output=True, text=True, check=True, timeout=20
  )
  return done.stdout


def why_not() -> str:
  """Why there can be no hosts here; empty if there can."""
  if os.geteuid() != 0:
    return 'network namespaces need root'
  for program in ('ip', 'nft', 'tc'):
    if shutil.which(program) is None:
      return f'there is no {program!r}: apt-get install iproute2 nftables'
  probe = f'csprobe{os.getpid()}'
  try:
    _run(f'ip netns add {probe}')
    _run(f'ip netns del {probe}')
  except subprocess.CalledProcessError as error:
    return f'no network namespaces here: {error.stderr.strip()}'
  return ''


class Hosts:
  """Hosts on a bridge that nobody else has: 10.77.n.1, 10.77.n.2, ...

  Attributes:
    address: of this process, as the hosts reach it.
    names: of their network namespaces.
    addresses: theirs, in the same order.
  """

  def __init__(self, count: int) -> None:
    number = _new_bridge()
    self._bridge = f'csbr{number}'
    self.address = f'10.77.{number}.254'
    self.names = tuple(f'csh{number}x{index}' for index in range(1, count + 1))
    self.addresses = tuple(f'10.77.{number}.{index}' for index in range(1, count + 1))
    _run(f'ip addr add {self.address}/24 dev {self._bridge}')
    _run(f'ip link set {self._bridge} up')
    for name, address in zip(self.names, self.addresses, strict=True):
      _run(f'ip netns add {name}')
      _run(f'ip -n {name} link set lo up')
      _run(f'ip link add {self._port(name)} type veth peer name eth0 netns {name}')
      _run(f'ip link set {self._port(name)} master {self._bridge}')
      _run(f'ip link set {self._port(name)} up')
      _run(f'ip -n {name} addr add {address}/24 dev eth0')
      _run(f'ip -n {name} link set eth0 up')

  command = ('ip', 'netns', 'exec', '{host}')

  def pids(self, name: str) -> list[int]:
    """The processes of a host."""
    return [int(pid) for pid in _run(f'ip netns pids {name}').split()]

  def cut(self, name: str) -> None:
    """Unplugs a host."""
    _run(f'ip link set {self._port(name)} down')

  def mend(self, name: str) -> None:
    """Plugs it in again."""
    _run(f'ip link set {self._port(name)} up')

  def lose(self, name: str, percent: int) -> None:
    """Drops so many of the packets that come to a host."""
    _run(f'ip netns exec {name} nft add table inet loss')
    hook = '{ type filter hook input priority 0 ; }'
    _run(f'ip netns exec {name} nft add chain inet loss in {hook}')
    _run(
      f'ip netns exec {name} nft add rule inet loss in numgen random mod 100 < '
      f'{percent} drop'
    )

  def throttle(self, name: str, rate: str) -> None:
    """Lets a host send no faster than this, '10mbit'."""
    _run(
      f'ip netns exec {name} tc qdisc add dev eth0 root tbf rate {rate} '
      'burst 32kbit latency 400ms'
    )

  def vanish(self, name: str) -> None:
    """A host that loses its power: nobody gets to say anything."""
    self.cut(name)
    for pid in self.pids(name):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

  def close(self) -> None:
    """Ends what still runs there, and the hosts."""
    for name in self.names:
      for pid in self.pids(name):
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while any(map(self.pids, self.names)) and time.monotonic() < until:
      time.sleep(0.02)
    for name in self.names:
      _run(f'ip link del {self._port(name)}')  # A namespace takes its time to go.
      _run(f'ip netns del {name}')
    _run(f'ip link del {self._bridge}')

  def _port(self, name: str) -> str:
    return f'p{name}'


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
  """So many hosts, gone afterwards; skips the test where there can be none."""
  if reason := why_not():
    pytest.skip(reason)
  made = Hosts(count)
  try:
    yield made
  finally:
    made.close()


def _new_bridge() -> int:
  """Makes the first that is free, csbr0, csbr1, ..., and gives its number."""
  for number in _NETWORKS:
    try:
      _run(f'ip link add csbr{number} type bridge')
    except subprocess.CalledProcessError as error:
      if 'File exists' not in error.stderr:
        raise
    else:
      return number
  raise RuntimeError(f'there are {len(_NETWORKS)} such networks already')
