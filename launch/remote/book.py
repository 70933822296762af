"""Addresses that are not known before the nodes run: the desk keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from callsheet.errors import CourierError
from callsheet.launch import courier


class Directory(Protocol):
  """Who knows where nodes listen; a desk, or a client of one."""

  def address_of(self, node: str) -> str | None: ...


@dataclass(frozen=True)
class DeskBook:
  """A `Book` of addresses that nodes announce once they listen.

  Attributes:
    directory: knows the addresses.
    announce: tells the directory where a node of this process listens.
    secret: the program's own.
    host: this host's address, as the others reach it.
    deadline: seconds for a call that names none; None to wait for ever.
  """

  directory: Directory
  announce: Callable[[str, str], None]
  secret: bytes = field(repr=False)
  host: str
  deadline: float | None = 60.0

  def connect(self, name: str) -> Any:
    """A client of the node called `name`; it asks where that is when it needs to."""
    known = ''

    def locate() -> str:
      nonlocal known
      # Where the desk can't be reached, the node itself may well be.
      with contextlib.suppress(CourierError):
        known = self.directory.address_of(name) or known
      if not known:
        raise ConnectionRefusedError('it has not said yet where it listens')
      return known

    return courier.connect(locate, self.secret, peer=name, deadline=self.deadline)

  def listen(self, name: str) -> courier.Server:
    """The server of the node called `name`, at a free port of this host."""
    bracketed = f'[{self.host}]' if ':' in self.host else self.host
    server = courier.Server(f'tcp:{bracketed}:0', self.secret, name)
    self.announce(name, server.address)
    return server
