"""A host's own address, as others reach it."""

from __future__ import annotations

import socket

from callsheet.errors import UsageError


def address_towards(host: str, port: int = 9) -> str:
  """The address of the device through which this machine reaches `host`.

  Taken from the routes, not from the machine's name, which Debian maps to 127.0.1.1.
  Nothing is sent.

  Raises:
    UsageError: the name is unknown, or no route leads there.
  """
  try:
    family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
      probe.connect(target)
      return str(probe.getsockname()[0])
  except OSError as error:
    raise UsageError(
      f'the host {host!r} can not be reached from here: {error.strerror or error}'
    ) from None
