"""Who may see the page: holders of its token, by a name that is its host's own."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection


def own_names(bound: str) -> frozenset[str]:
  """Names by which a browser may call this host.

  Args:
    bound: the address or name that the page is served at.
  """
  host = socket.gethostname().lower()
  names = {'localhost', host, bound.lower()}
  if ipaddress_of(bound) is None or not ipaddress.ip_address(bound).is_loopback:
    names.add(socket.getfqdn().lower())
  return frozenset(names)


def ipaddress_of(text: str) -> str | None:
  """The address that the text is, brackets taken off; None if it is a name."""
  text = text.removeprefix('[').removesuffix(']')
  try:
    return str(ipaddress.ip_address(text))
  except ValueError:
    return None


def is_own(header: str | None, names: Collection[str]) -> bool:
  """Whether a request's Host is this host.

  Another site could have its name point here (DNS rebinding), and its scripts would be
  those of the page; an address can't be pointed anywhere.

  Args:
    header: the Host header, 'localhost:8000' or '[::1]:8000'.
    names: see `own_names`.
  """
  if not header:
    return False
  host = header.strip().lower()
  if host.startswith('['):
    host = host.partition(']')[0] + ']'
  else:
    host = host.partition(':')[0]
  return ipaddress_of(host) is not None or host in names


def holds(given: str | None, token: str) -> bool:
  """Whether what was given is the token, told in constant time."""
  return given is not None and hmac.compare_digest(given.encode(), token.encode())
