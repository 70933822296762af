"""Addresses on this machine alone: one private folder of unix sockets a program."""

from __future__ import annotations

import os
import secrets

from callsheet.launch.addresses import AddressBook, group_of
from callsheet.programs.plan import Plan


def local_book(plan: Plan, folder: str, deadline: float | None) -> AddressBook:
  """Gives every node a socket in `folder`, which must be ours alone and short.

  So does it every SPMD group, under `group_of` its leader.

  Args:
    plan: whose nodes.
    folder: a private folder; the path of a unix socket ends at 107 bytes.
    deadline: seconds for a call that names none.
  """
  names = [node.name for node in plan.nodes]
  names += [group_of(n.name) for n in plan.nodes if n.spmd and n.spmd.rank == 0]
  addresses = {
    name: f'unix:{os.path.join(folder, str(index))}' for index, name in enumerate(names)
  }
  return AddressBook(addresses, secrets.token_bytes(32), deadline)
