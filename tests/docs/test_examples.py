"""What the documents show is what happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from callsheet.agents.dqn import dqn
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.programs.actor_learner import actor_learner

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


@pytest.mark.parametrize('backend', ['threads', 'processes'])
@pytest.mark.parametrize(
  ('example', 'expected'),
  [
    ('counter_and_workers.py', ['makes 333, says process']),
    ('futures.py', ['rolled [', 'too slow: simulator/0.roll', 'lucky at last']),
  ],
)
def test_example_runs(example: str, expected: list[str], backend: str) -> None:
  done = subprocess.run(
    [sys.executable, ROOT / 'examples' / example, backend],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=90,
  )
  assert done.returncode == 0, done.stdout
  for text in expected:
    assert text in done.stdout


def test_readme_has_the_first_example() -> None:
  code = (ROOT / 'examples' / 'counter_and_workers.py').read_text()
  assert code.split('"""', 2)[2].strip() in README


def test_readme_draws_the_graph_of_dqn() -> None:
  make_environment = make_gymnasium('CartPole-v1')
  environment = make_environment(1, 0)
  program = actor_learner(dqn(environment.spec()), make_environment)
  environment.close()
  assert program.describe('mermaid').strip() in README
