"""Who sent what, and what was acknowledged: kept outside of the run, for the audit.

Each process appends to a file of its own, a line a call: before it is sent, and once it
has been answered.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from callsheet.nodes.count_journal import CountJournal


class Ledger:
  """One process's file, in the ledger's folder."""

  def __init__(self, folder: str, node: str) -> None:
    name = f'{node.replace("/", "-")}-{os.getpid()}.jsonl'
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    self._file = os.open(os.path.join(folder, name), flags, 0o644)

  def write(self, *entry: object) -> None:
    """Appends a line, which a kill of the process can't take back."""
    os.write(self._file, (json.dumps(entry) + '\n').encode())


class Audited:
  """A client that keeps a ledger of some calls; all else passes through.

  Args:
    client: of a counter or a replay.
    ledger: where to.
    amounts: of each method that is kept, what a call of it brings.
  """

  def __init__(
    self, client: Any, ledger: Ledger, amounts: Mapping[str, Callable[..., object]]
  ) -> None:
    self._client, self._ledger, self._amounts = client, ledger, amounts

  def __getattr__(self, name: str) -> Any:
    method = getattr(self._client, name)
    if name not in self._amounts:
      return method

    def kept(*args: Any, **kwargs: Any) -> Any:
      amount = self._amounts[name](*args, **kwargs)
      self._ledger.write('sent', name, amount)
      answer = method(*args, **kwargs)
      self._ledger.write('acknowledged', name, amount)
      return answer

    return kept


def of_counter(client: Any, ledger: Ledger) -> Audited:
  """Keeps what each source has counted in all."""

  def totals(source: str, totals: Mapping[str, int]) -> object:
    return [source, {name: int(total) for name, total in totals.items()}]

  return Audited(client, ledger, {'report': totals})


def of_replay(client: Any, ledger: Ledger) -> Audited:
  """Keeps how many items each block has."""

  def items(table: str, columns: Mapping[str, Any], *rest: object) -> object:
    return len(columns['reward'])

  return Audited(client, ledger, {'insert': items})


def entries(folder: Path) -> Iterator[list[Any]]:
  """All lines of all processes; a last one may have been cut off."""
  for path in sorted(folder.glob('*.jsonl')):
    for line in path.read_text().splitlines():
      if line.endswith(']'):
        yield json.loads(line)


def audit(folder: Path, run: Path, *, replay_killed: bool = False) -> list[str]:
  """What is not as it was promised; see the README.

  Args:
    folder: of the ledger.
    run: the run's folder, once it has ended.
    replay_killed: that may have happened right before the run's end.
  """
  return [
    *_counts(folder, CountJournal(run / 'counts.jsonl').read()),
    *_items(folder, replay_killed),
    *_rows(run / 'metrics.jsonl'),
  ]


def _counts(folder: Path, counted: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
  """Exactly once: by each source between what was acknowledged and what was sent."""
  least: dict[tuple[str, str], int] = defaultdict(int)
  most: dict[tuple[str, str], int] = defaultdict(int)
  for what, method, amount, *_ in entries(folder):
    if method == 'report':
      source, totals = amount
      for name, total in totals.items():
        most[source, name] = max(most[source, name], total)
        if what == 'acknowledged':
          least[source, name] = max(least[source, name], total)
  if not least:
    yield 'nothing was counted'
  for (source, name), total in most.items():
    found = counted.get(source, {}).get(name, 0)
    if not least[source, name] <= found <= total:
      yield (
        f'{name} of {source}: {found} were counted, {least[source, name]} were '
        f'acknowledged and {total} were sent'
      )
  for source in counted:
    unknown = {name for name in counted[source] if (source, name) not in most}
    if unknown:
      yield f'{source or "nobody"} counted {counted[source]}, and never sent that'


def _items(folder: Path, killed: bool) -> Iterator[str]:
  """At least once, but for what a lost replay had not written down yet."""
  sent = acknowledged = lives = 0
  inserted: int | None = None
  for what, method, amount, *_ in entries(folder):
    if method == 'insert':
      sent += amount if what == 'sent' else 0
      acknowledged += amount if what == 'acknowledged' else 0
    lives += (what, method) == ('begins', 'replay')
    if (what, method) == ('ends', 'replay'):
      inserted = amount
  if inserted is None:
    if not killed:
      yield 'the replay has not ended in order'
  elif inserted > sent:
    yield f'{inserted} items were inserted, {sent} were sent'
  elif lives == 1 and inserted < acknowledged:
    yield f'{inserted} items were inserted, {acknowledged} were acknowledged'


def _rows(path: Path) -> Iterator[str]:
  """No count ever goes back, nor does the run's clock."""
  before: dict[str, float] = {}
  for line in path.read_text().splitlines():
    row = json.loads(line)
    for name in ('seconds', 'actor_steps', 'episodes', 'learner_steps'):
      if row[name] < before.get(name, 0):
        yield f'{name} went back from {before[name]} to {row[name]}'
      before[name] = row[name]
