"""Where each node of a running program listens, and the secret that opens the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from callsheet.launch import courier


@dataclass(frozen=True)
class AddressBook:
  """All that a node needs to reach the others.

  Attributes:
    addresses: `unix:/path` or `tcp:host:port` by node.
    secret: the program's own, 32 random bytes.
    deadline: seconds for a call that names none; None to wait for ever.
  """

  addresses: Mapping[str, str]
  secret: bytes = field(repr=False)
  deadline: float | None = 60.0

  def connect(self, name: str) -> Any:
    """A client of the node called `name`; it connects on its first call."""
    return courier.connect(
      self.addresses[name], self.secret, peer=name, deadline=self.deadline
    )

  def listen(self, name: str) -> courier.Server:
    """The server of the node called `name`."""
    return courier.Server(self.addresses[name], self.secret, name)
