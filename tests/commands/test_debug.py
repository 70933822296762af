"""`callsheet run --debug`: breakpoints in any node, and failures that repeat."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# What `callsheet` runs, with a line of somebody's debugging in it.
MAIN = """
import sys
from callsheet.commands.main import main, stay_single
import os
stay_single(os.environ)
from callsheet.nodes.{module} import {service} as service
before = service.{method}

def changed(self, *args, **kwargs):
  {line}
  return before(self, *args, **kwargs)

service.{method} = changed
main(sys.argv[1:])
"""


def debugged(
  place: Path, name: str, where: str, line: str, script: str
) -> tuple[int, str]:
  """The exit code of a run, and what it and the debugger say."""
  module, service, method = where.split('.')
  path = place / f'{name}.py'
  path.write_text(MAIN.format(module=module, service=service, method=method, line=line))
  done = subprocess.run(
    [
      sys.executable,
      str(path),
      'run',
      'dqn',
      '--debug',
      f'--name={name}',
      '--max_actor_steps=1500',
      '--hidden_sizes=8,8',
      '--num_episodes=2',
      '--min_replay_size=200',
    ],
    input=script,
    capture_output=True,
    text=True,
    cwd=place,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(sys.path)},
    timeout=300,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
  'where',
  [
    'actor.Actor.report',
    'learner.Learner.learn_on',
    'native_replay.NativeReplay.sample',
  ],
)
def test_breakpoint_in_any_node(tmp_path: Path, where: str):
  service = where.split('.')[1]
  line = 'self.seen = getattr(self, "seen", 0) + 1; self.seen == 2 and breakpoint()'
  script = 'p "it is", type(self).__name__\nc\n'
  code, said = debugged(tmp_path, 'run', where, line, script)
  assert code == 0, said
  assert f"('it is', '{service}')" in said


@pytest.mark.timeout(600)
def test_a_failure_repeats(tmp_path: Path):
  line = 'assert self._steps < 30'
  script = 'p "at", self._steps, self._metrics["loss"].tolist()\nq\n'
  found = []
  for name in ('once', 'again'):
    code, said = debugged(tmp_path, name, 'learner.Learner.learn_on', line, script)
    assert code == 1 and '-> assert self._steps < 30' in said, said
    found.append(re.findall(r"\('at', 30, .*\)", said))
  assert found[0] and found[0] == found[1]
