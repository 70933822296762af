"""Where a node listens: `unix:/path` on one host, `tcp:host:port` between hosts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass

from callsheet.errors import UsageError

_LONGEST_PATH = 107  # bytes in sockaddr_un.sun_path, without the closing zero
_BACKLOG = 4096


@dataclass(frozen=True)
class Address:
  """A parsed address; `path` is set for unix sockets, `host` and `port` for TCP."""

  path: str = ''
  host: str = ''
  port: int = 0

  def __str__(self) -> str:
    if self.path:
      return f'unix:{self.path}'
    host = f'[{self.host}]' if ':' in self.host else self.host
    return f'tcp:{host}:{self.port}'


def parse(text: str) -> Address:
  """Reads `unix:/path`, `tcp:host:port` or `tcp:[v6]:port`.

  Raises:
    UsageError: it is neither, or the path is longer than the kernel takes.
  """
  scheme, _, rest = text.partition(':')
  if scheme == 'unix' and rest:
    size = len(os.fsencode(rest))
    if size > _LONGEST_PATH:
      raise UsageError(
        f'the socket path {rest!r} has {size} bytes, the kernel takes at most '
        f'{_LONGEST_PATH}: use a shorter folder, for instance one under /tmp'
      )
    return Address(path=rest)
  host, _, port = rest.rpartition(':')
  if scheme == 'tcp' and host and port.isdecimal() and int(port) < 65536:
    return Address(host=host.removeprefix('[').removesuffix(']'), port=int(port))
  raise UsageError(
    f"{text!r} is no address: expected 'unix:/path/of/socket' or "
    "'tcp:host:port', for instance 'tcp:127.0.0.1:0'"
  )


def listen(address: Address) -> tuple[socket.socket, Address]:
  """A listening socket and the address it really has (port 0 resolved).

  Raises:
    UsageError: the address is taken, or is not this machine's to listen on.
  """
  try:
    return _listen_unix(address) if address.path else _listen_tcp(address)
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      reason = (
        'it is taken by another process: choose another, or port 0 for a free one'
      )
    else:
      reason = str(error)
    raise UsageError(f'can not listen on {address}: {reason}') from error


def _listen_unix(address: Address) -> tuple[socket.socket, Address]:
  _remove_stale(address.path)
  listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  try:
    listener.bind(address.path)
    # Nobody can connect between bind and listen, so nobody sees the wider mode.
    os.chmod(address.path, 0o600)
    listener.listen(_BACKLOG)
  except OSError:
    listener.close()
    raise
  return listener, address


def _remove_stale(path: str) -> None:
  """Removes the socket of a server that is gone; a living one keeps its own."""
  try:
    mode = os.stat(path).st_mode
  except FileNotFoundError:
    return
  if not stat.S_ISSOCK(mode):
    raise FileExistsError(f'{path} exists and is no socket')
  with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
    probe.setblocking(False)
    try:
      probe.connect(path)
    except ConnectionRefusedError:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
      return
    except BlockingIOError:
      pass
  raise OSError(errno.EADDRINUSE, 'taken')


def _listen_tcp(address: Address) -> tuple[socket.socket, Address]:
  family, kind, _, _, target = _resolve(address, socket.AI_PASSIVE)
  listener = socket.socket(family, kind)
  try:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(target)
    listener.listen(_BACKLOG)
  except OSError:
    listener.close()
    raise
  return listener, Address(host=address.host, port=listener.getsockname()[1])


def dial(address: Address, timeout: float | None) -> socket.socket:
  """A connected socket, its timeout still set; raises OSError if nobody answers."""
  if address.path:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    target: tuple[object, ...] | str = address.path
  else:
    family, kind, _, _, target = _resolve(address, 0)
    sock = socket.socket(family, kind)
  try:
    sock.settimeout(timeout)
    sock.connect(target)
    if not address.path and sock.getsockname() == sock.getpeername():
      raise ConnectionRefusedError(errno.ECONNREFUSED, 'connected to itself')
  except BaseException:
    sock.close()
    raise
  return sock


def _resolve(
  address: Address, flags: int
) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]:
  found = socket.getaddrinfo(
    address.host, address.port, type=socket.SOCK_STREAM, flags=flags
  )
  return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def tune(sock: socket.socket) -> None:
  """No delay for small messages; a host that vanished is noticed in half a minute."""
  if sock.family == socket.AF_UNIX:
    return
  sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for option, value in (('TCP_KEEPIDLE', 15), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 3)):
    if hasattr(socket, option):
      sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
  if hasattr(socket, 'TCP_USER_TIMEOUT'):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
