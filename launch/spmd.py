"""Several processes as one SPMD group: they meet, and JAX makes one machine of them.

The first process serves its group a courier of its own, so that nothing but its address
must be known beforehand: where it listens for JAX is found out by it and told there.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from callsheet.calls import blocking
from callsheet.errors import Unavailable, UsageError
from callsheet.launch.addresses import Book, group_of
from callsheet.launch.events import Failure
from callsheet.programs.plan import NodePlan, Spmd


class Meeting:
  """Where the processes of a group wait until all have come.

  Args:
    spmd: the leader's place.
    host: of the leader, as the others reach it.
    timeout: seconds that all may take to come; None for no limit.
  """

  def __init__(self, spmd: Spmd, host: str, timeout: float | None) -> None:
    self._spmd, self._timeout = spmd, timeout
    shown = f'[{host}]' if ':' in host else host
    self._coordinator = f'{shown}:{_free_port(host)}'
    # Of this life of the group: another's coordinator may have taken the port.
    self._token = secrets.randbits(31)
    self._came: set[int] = set()
    self._changed = threading.Condition()

  @blocking
  def come(self, rank: int) -> tuple[str, int]:
    """Waits for the others.

    Returns:
      Where the leader's JAX coordinator will listen, and the group's token.

    Raises:
      Unavailable: some did not come in time.
    """
    until = None if self._timeout is None else time.monotonic() + self._timeout
    with self._changed:
      self._came.add(rank)
      self._changed.notify_all()
      while len(self._came) < self._spmd.size:
        if until is not None and time.monotonic() >= until:
          raise Unavailable(self._missing(), group_of(self._spmd.leader))
        self._changed.wait(_POLL)
    return self._coordinator, self._token

  def _missing(self) -> str:
    leader, size = self._spmd.leader, self._spmd.size
    names = [f'{leader}.{rank}' for rank in range(1, size) if rank not in self._came]
    return (
      f'{len(self._came)} of the {size} processes of {leader!r} came together within '
      f'{self._timeout:g} s; see what the logs of {", ".join(names)} say'
    )


def join(node: NodePlan, book: Book, connect: Callable[[str], Any]) -> None:
  """Makes this process one of the group that runs the node, if there is one.

  From then on `jax.devices()` are those of all; JAX must not have been used before.

  Args:
    node: which of the group this is.
    book: where it listens, if it leads.
    connect: gives a client by the node's name.

  Raises:
    Unavailable: the others did not come in time.
    UsageError: the others would not find this host by its own name.
  """
  if node.spmd is None:
    return
  if _on_cpu():
    check_own_name(node.spmd.leader, book.host)
  spmd, name = node.spmd, group_of(node.spmd.leader)
  if spmd.rank:
    coordinator, token = connect(name).come(spmd.rank)
    _initialize(spmd, coordinator, token, book.deadline)
    return
  with contextlib.closing(book.listen(name)) as server:
    meeting = Meeting(spmd, book.host, book.deadline)
    server.serve(meeting)
    coordinator, token = meeting.come(0)
    _initialize(spmd, coordinator, token, book.deadline)


def leave(node: NodePlan) -> None:
  """Waits for the others to come to their end too: who misses one of them aborts."""
  if node.spmd is not None:
    import jax

    with contextlib.suppress(RuntimeError):  # One of them was lost on its way.
      jax.distributed.shutdown()  # type: ignore[no-untyped-call]


def failure_of(node: NodePlan, error: BaseException) -> Failure:
  """The failure that this exception is.

  What XLA raises in one process of a group is mostly the death of another.
  """
  name = node.name
  if node.spmd is None or not _STATUS.match(str(error)):
    return Failure.of(name, error)
  return Failure.of(name, error, blames=group_of(node.spmd.leader))


_POLL = 0.1  # seconds; a stop is noticed in between
_LONGEST = 24 * 3600  # seconds

# As in 'UNKNOWN: Gloo all-reduce failed'; of which type it is depends on the release.
_STATUS = re.compile('[A-Z_]+: ')


def _initialize(
  spmd: Spmd, coordinator: str, token: int, timeout: float | None
) -> None:
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  if _on_cpu():
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')  # type: ignore[no-untyped-call]
  if hasattr(jax.config, 'jax_enable_preemption_service'):
    # With it SIGTERM would not end the process.
    jax.config.update('jax_enable_preemption_service', False)  # type: ignore[no-untyped-call]
  jax.distributed.initialize(
    coordinator,
    spmd.size,
    spmd.rank,
    cluster_detection_method='deactivate',
    coordinator_bind_address=coordinator,
    initialization_timeout=_LONGEST if timeout is None else math.ceil(timeout),
  )
  tokens = multihost_utils.process_allgather(np.int32(token))
  if not np.all(tokens == token):
    raise Unavailable(
      f'{coordinator}, the coordinator of {spmd.leader!r}, was taken by another group '
      'meanwhile; it may be tried again',
      group_of(spmd.leader),
    )


def _on_cpu() -> bool:
  return os.environ.get('JAX_PLATFORMS') == 'cpu'


def check_own_name(leader: str, host: str) -> None:
  """Refuses what gloo, by which CPUs exchange arrays, hangs or crashes on.

  It listens where the machine's own name leads, and tells the others that.

  Args:
    leader: of the group.
    host: of this process, as the others reach it.

  Raises:
    UsageError: they would not reach it there.
  """
  if _is_loopback(host):
    return
  name = socket.gethostname()
  try:
    found = socket.gethostbyname(name)
  except OSError:
    found = ''
  if not found or _is_loopback(found):
    leads = f'leads to {found}, which is each host itself' if found else 'leads nowhere'
    raise UsageError(
      f'the name {name!r} of this host {leads}: the other processes of {leader!r} '
      f"would not reach it; let it lead to the host's address, with a line such as "
      f"'{host} {name}' in /etc/hosts"
    )


def _is_loopback(host: str) -> bool:
  return host in ('localhost', '::1') or host.startswith('127.')


def _free_port(host: str) -> int:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  with socket.socket(family, socket.SOCK_STREAM) as probe:
    probe.bind((host, 0))
    port: int = probe.getsockname()[1]
    return port
