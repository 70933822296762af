"""The launcher's side where a cluster starts the workers: it waits for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from callsheet.errors import UsageError
from callsheet.launch.courier.address import parse
from callsheet.launch.kubernetes.jobset import ADDRESS, FOLDER, TICKET
from callsheet.launch.remote.crew import RemoteCrew
from callsheet.launch.remote.ticket import Ticket
from callsheet.programs.plan import Plan


@dataclass(frozen=True)
class Pods:
  """Runs a program in a JobSet that this process is the launcher's pod of.

  `Kubernetes.submit` makes one; it is of no use elsewhere.

  Attributes:
    logs: by unit, the command that shows its output.
    deadline: seconds for a call that names none; None to wait for ever.
    arrival: seconds that a unit's pod may take to sign on.
    silence: seconds without a word after which a worker counts as lost.
  """

  logs: Mapping[str, str]
  deadline: float | None = 60.0
  arrival: float = 1800.0
  silence: float = 45.0
  name: str = 'pods'

  def open(self, plan: Plan, say: Callable[[str, str], None]) -> RemoteCrew:
    """See `Backend.open`.

    Raises:
      UsageError: this is no launcher's pod.
    """
    if ADDRESS not in os.environ:
      raise UsageError(
        f'this process is no pod of a JobSet: {ADDRESS} is not set; submit the program '
        "by Kubernetes(image='...').submit(plan)"
      )
    with open(os.path.join(FOLDER, TICKET)) as file:
      ticket = Ticket.loads(file.read())
    return RemoteCrew(
      plan,
      PodEngine(self.logs, say),
      os.environ[ADDRESS],
      deadline=self.deadline,
      arrival=self.arrival,
      silence=self.silence,
      secret=bytes.fromhex(ticket.secret),
      port=parse(ticket.desk).port,
    )


class PodEngine:
  """See `Engine`; pods start by themselves.

  Args:
    logs: by unit, the command that shows its output.
    say: prints a line under a unit's name.
    submit: called with the first ticket, before the first worker can come.
    withdraw: called at the end.
  """

  def __init__(
    self,
    logs: Mapping[str, str],
    say: Callable[[str, str], None],
    submit: Callable[[Ticket], None] = lambda ticket: None,
    withdraw: Callable[[], None] = lambda: None,
  ) -> None:
    self._logs, self._say = logs, say
    self._submit, self._withdraw = submit, withdraw
    self._submitted = False

  def start(self, unit: str, ticket: Ticket, ended: Callable[[str], None]) -> None:
    """Waits; the first time, all units are submitted."""
    if not self._submitted:
      self._submit(ticket)
      self._submitted = True

  def kill(self, unit: str) -> None:
    """Leaves it to the worker, which has been dismissed."""

  def note(self, unit: str, text: str) -> None:
    """See `Engine.note`."""
    for line in text.rstrip().splitlines():
      self._say(unit, line)

  def log(self, unit: str) -> str:
    """See `Engine.log`."""
    return self._logs[unit]

  def close(self, failed: bool) -> None:
    """See `Engine.close`."""
    if self._submitted:
      self._withdraw()
