"""What the documents show is what happens."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from callsheet.agents.base import Limiter
from callsheet.agents.dqn import dqn
from callsheet.nodes.gymnasium_environments import make_gymnasium
from callsheet.programs.actor_learner import actor_learner
from tests.agents import guard

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


def test_readme_walks_through_the_agent_from_scratch() -> None:
  code = (ROOT / 'examples' / 'my_agent.py').read_text()
  assert len(code.splitlines()) < 150
  section = README.split('## An agent of your own')[1].split('\n## ')[0]
  shown = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
  assert len(shown) >= 4
  for block in shown:
    assert textwrap.indent(block.strip(), '  ').strip() in code


def test_the_agent_from_scratch_solves_two_states() -> None:
  spec = importlib.util.spec_from_file_location(
    'my_agent', ROOT / 'examples' / 'my_agent.py'
  )
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules['my_agent'] = module
  try:
    spec.loader.exec_module(module)
    config = module.Config(hidden_size=16, n_step=1, batch_size=16, learning_rate=5e-3)
    agent = module.soft_q(guard.DISCRETE, config)
    [table] = agent.tables
    small = dataclasses.replace(table, max_size=1000, limiter=Limiter(32))
    learnt = guard.learn(dataclasses.replace(agent, tables=(small,)))
    assert learnt.falls()
    assert learnt.greedy_return == guard.BEST
    assert {node.name for node in module.program().plan().nodes} >= {
      'learner',
      'replay',
    }
  finally:
    del sys.modules['my_agent']


def test_readme_draws_the_graph_of_dqn() -> None:
  make_environment = make_gymnasium('CartPole-v1')
  environment = make_environment(1, 0)
  program = actor_learner(dqn(environment.spec()), make_environment)
  environment.close()
  assert program.describe('mermaid').strip() in README
