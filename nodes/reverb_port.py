"""The port of a Reverb server: taken by nobody else, and reached from this host alone.

Reverb 0.7.2 listens on all interfaces, asks nobody who they are, and can be told a port
but no address. It also sets SO_REUSEPORT: where another gRPC server of the same user
holds the port, both would silently share its connections.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator

from callsheet.errors import UsageError


@contextlib.contextmanager
def reserved(port: int | None) -> Iterator[int]:
  """Holds a port while a gRPC server is started on it.

  Args:
    port: the one wanted; None takes any that is free.

  Raises:
    UsageError: the port is taken.
  """
  with _socket() as holder:
    # What the last server there has closed lingers for a minute; a listener still bars.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      holder.bind(('', port or 0))
    except OSError as error:
      if error.errno != errno.EADDRINUSE:
        raise UsageError(f'port {port} for Reverb can not be had: {error}') from None
      raise UsageError(
        f'port {port} for Reverb is taken; port=None picks a free one'
      ) from None
    # Set behind bind, so that bind itself still fails on a port that is shared already.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    yield holder.getsockname()[1]


def keep_on_host(port: int) -> bool:
  """Binds this process's listeners on that port to the loopback device.

  Packets that come by any other device no longer find them. Other users of this host
  still do.

  Returns:
    whether it could be done; where the kernel refuses, a warning is logged.
  """
  listeners = list(_listeners(port))
  try:
    for listener in listeners:
      with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo\0')
  except OSError as error:
    logging.getLogger(__name__).warning(
      'Reverb listens on all interfaces at port %d without authentication, '
      'and it can not be bound to loopback here: %s',
      port,
      error,
    )
    return False
  return bool(listeners)


def _socket() -> socket.socket:
  if not socket.has_dualstack_ipv6():
    return socket.socket(socket.AF_INET)
  both = socket.socket(socket.AF_INET6)
  both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
  return both


def _listeners(port: int) -> Iterator[socket.socket]:
  for name in os.listdir('/proc/self/fd'):
    try:
      if not os.readlink(f'/proc/self/fd/{name}').startswith('socket:'):
        continue
      found = socket.socket(fileno=os.dup(int(name)))
    except OSError:
      continue
    inet = found.family in (socket.AF_INET, socket.AF_INET6)
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if inet and listens and found.getsockname()[1] == port:
      yield found
    else:
      found.close()
