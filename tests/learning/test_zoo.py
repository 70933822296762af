"""Every agent reaches its target, with three seeds and in both local backends.

make learn AGENT=sac keeps a record of each run; make zoo makes agents/README.md of all.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.learning.records import Record, keep
from tests.learning.rows import BACKENDS, ROWS, SEEDS, Row


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
  ('row', 'backend', 'seed'),
  [
    pytest.param(row, backend, seed, id=f'{row.name}-{backend}-{seed}')
    for row in ROWS
    for backend in row.backends
    for seed in row.seeds
  ],
)
def test_reaches_its_target(runs: Path, row: Row, backend: str, seed: int) -> None:
  name = row.folder(backend, seed)
  shutil.rmtree(runs / name, ignore_errors=True)
  dataset = []
  if row.dataset is not None:
    [made_by] = [each for each in ROWS if each.name == row.dataset]
    dataset = [f'--dataset={runs / made_by.folder(BACKENDS[0], SEEDS[0])}']
  done = subprocess.run(
    [
      Path(sys.executable).with_name('callsheet'),
      'run',
      row.agent,
      f'--env={row.environment}',
      f'--name={name}',
      f'--runs_directory={runs}',
      f'--seed={seed}',
      f'--backend={backend}',
      f'--target_return={row.target}',
      *row.flags,
      *dataset,
    ],
    capture_output=True,
    text=True,
    timeout=3000,
  )
  assert done.returncode == 0, done.stderr
  record = Record.of(runs / name, row, backend, seed)
  keep(record)
  print(f'\n{name}: {done.stdout.splitlines()[-4:-2]}')
  assert record.final >= row.target, done.stdout
