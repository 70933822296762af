"""Every agent reaches its target, with three seeds and in both local backends.

make learn AGENT=sac keeps the runs; make zoo then makes agents/README.md of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.learning.rows import BACKENDS, ROWS, SEEDS, Row


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)
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
  lines = (runs / name / 'metrics.jsonl').read_text().splitlines()
  last = json.loads(lines[-1])
  print(f'\n{name}: {done.stdout.splitlines()[-4:-2]}')
  assert last['evaluator/return'] >= row.target, done.stdout
