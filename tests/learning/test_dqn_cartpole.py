"""DQN solves CartPole-v1, as the README promises: make learn"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = 475


@pytest.mark.learning
@pytest.mark.timeout(600)
@pytest.mark.parametrize('backend', ['processes', 'threads'])
@pytest.mark.parametrize(
  ('seed', 'inference'), [(0, 'actor'), (1, 'actor'), (2, 'actor'), (0, 'server')]
)
def test_solves_cartpole(
  tmp_path: Path, seed: int, inference: str, backend: str
) -> None:
  callsheet = Path(sys.executable).with_name('callsheet')
  arguments = [
    '--env=CartPole-v1',
    '--name=run',
    f'--runs_directory={tmp_path}',
    f'--seed={seed}',
    f'--backend={backend}',
    f'--inference={inference}',
  ]
  done = subprocess.run(
    [callsheet, 'run', 'dqn', *arguments],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  run = tmp_path / 'run'
  last = json.loads((run / 'metrics.jsonl').read_text().splitlines()[-1])
  print(f'\nseed {seed}, {backend}, inference by {inference}: {json.dumps(last)}')
  assert last['evaluator/return'] >= TARGET
  played = subprocess.run(
    [callsheet, 'eval', run], capture_output=True, text=True, check=True
  )
  print(played.stdout)
  found = re.search(r'mean return ([\d.]+) over 20 episodes', played.stdout)
  assert found, played.stdout
  # Other episodes than those that ended the run: the policy holds, within their noise.
  assert float(found[1]) >= 0.9 * TARGET
