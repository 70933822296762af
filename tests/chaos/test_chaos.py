"""The short version of the suite, and whether its audit would find something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.faults import KINDS, Fault, draw
from tests.chaos.ledger import audit
from tests.chaos.suffering import suffer

TARGET = 350.0


@pytest.mark.chaos
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
  ('kind', 'victim'),
  # Without its evaluator a run can't end before the silence is noticed.
  [('SIGKILL', 'learner'), ('SIGSTOP', 'evaluator'), ('answers lost', 'counter')],
)
def test_a_run_survives(kind: str, victim: str) -> None:
  outcome = suffer(Fault(0, kind, victim, 0.2, 5), TARGET, patience=300)
  assert outcome.complaints == ()
  assert outcome.restarts >= kind.startswith('SIG')


def test_every_kind_meets_every_victim() -> None:
  pairs = {(kind, victim) for kind, victims in KINDS.items() for victim in victims}
  faults = draw(7, 100)
  assert {(fault.kind, fault.victim) for fault in faults} == pairs
  assert faults == draw(7, 120)[:100] and faults != draw(8, 100)


@pytest.fixture
def ledger(tmp_path: Path) -> tuple[Path, Path]:
  """The ledger's folder and the run's, of a run in which all went well."""
  folder, run = tmp_path / 'ledger', tmp_path / 'run'
  folder.mkdir()
  run.mkdir()
  entries = [
    ['begins', 'replay', 0],
    *([what, 'report', ['a', {'steps': 5}]] for what in ('sent', 'acknowledged')),
    *([what, 'insert', 7] for what in ('sent', 'acknowledged')),
    ['sent', 'report', ['a', {'steps': 9}]],
    ['ends', 'replay', 7],
  ]
  (folder / 'n-1.jsonl').write_text('\n'.join(map(json.dumps, entries)) + '\n["cut')
  (run / 'counts.jsonl').write_text('["a", {"steps": 5}]\n')
  row = {'seconds': 1.0, 'actor_steps': 5, 'episodes': 0, 'learner_steps': 3}
  rows = [row, {**row, 'seconds': 2.0}]
  (run / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  assert audit(folder, run) == []
  return folder, run


@pytest.mark.parametrize(
  ('file', 'change', 'complaint'),
  [
    ('run/counts.jsonl', lambda text: text.replace('5', '4'), '4 were counted, 5 were'),
    ('run/counts.jsonl', lambda text: text.replace('5', '10'), 'and 9 were sent'),
    ('run/counts.jsonl', lambda text: text + '["", {"steps": 1}]', 'never sent that'),
    (
      'ledger/n-1.jsonl',
      lambda text: text.replace('"replay", 7', '"replay", 6'),
      '6 i',
    ),
    (
      'ledger/n-1.jsonl',
      lambda text: text.replace('"replay", 7', '"replay", 8'),
      '8 i',
    ),
    (
      'ledger/n-1.jsonl',
      lambda text: text.replace('ends', 'end'),
      'not ended in order',
    ),
    ('run/metrics.jsonl', lambda text: text.replace('2.0', '0.5'), 'seconds went back'),
  ],
)
def test_the_audit_finds_it(
  ledger: tuple[Path, Path], file: str, change: Callable[[str], str], complaint: str
) -> None:
  path = ledger[0].parent / file
  path.write_text(change(path.read_text()))
  found = audit(*ledger)
  assert len(found) == 1 and complaint in found[0]


def test_a_replay_that_is_killed_as_the_run_ends_can_not_end_in_order(
  ledger: tuple[Path, Path],
) -> None:
  file = ledger[0] / 'n-1.jsonl'
  file.write_text(file.read_text().replace('ends', 'end'))
  assert audit(*ledger, replay_killed=True) == []
