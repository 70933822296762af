"""Where each node of a running program listens, and the secret that opens the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from callsheet.launch import courier


class Book(Protocol):
  """How a node reaches the others and is reached by them."""

  @property
  def host(self) -> str: ...
  @property
  def deadline(self) -> float | None: ...

  def connect(self, name: str) -> Any:
    """A client of the node called `name`; it connects on its first call."""

  def listen(self, name: str) -> courier.Server:
    """The server of the node called `name`."""


@dataclass(frozen=True)
class AddressBook:
  """A `Book` of addresses that are known before the program starts.

  Attributes:
    addresses: `unix:/path` or `tcp:host:port` by node.
    secret: the program's own, 32 random bytes.
    deadline: seconds for a call that names none; None to wait for ever.
    host: this host's address, as the others reach it.
  """

  addresses: Mapping[str, str]
  secret: bytes = field(repr=False)
  deadline: float | None = 60.0
  host: str = '127.0.0.1'

  def connect(self, name: str) -> Any:
    """A client of the node called `name`; it connects on its first call."""
    return courier.connect(
      self.addresses[name], self.secret, peer=name, deadline=self.deadline
    )

  def listen(self, name: str) -> courier.Server:
    """The server of the node called `name`."""
    return courier.Server(self.addresses[name], self.secret, name)


def group_of(leader: str) -> str:
  """Under which name the processes of an SPMD group find their first one."""
  return f'{leader}#group'
