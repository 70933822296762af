"""What each process of a real run has imported when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.conftest import Shell
from tests.commands.test_run import NODES, SMALL, pids, steps

# A node's process ends by `os._exit`, the launcher's as any other does.
WITNESS = """
import atexit, os, sys

def write(folder={folder!r}):
  names = sorted(dict.fromkeys(name.partition('.')[0] for name in list(sys.modules)))
  with open(os.path.join(folder, str(os.getpid())), 'w') as file:
    file.write(' '.join(names))

def leave(code, leave=os._exit):
  write()
  leave(code)

os._exit = leave
atexit.register(write)
"""
FOREIGN = {'tensorflow', 'reverb', 'launchpad', 'keras', 'tensorboard'}


# Units are forked from the command where they have as many threads as it has.
@pytest.mark.timeout(180)
@pytest.mark.parametrize(('threads', 'forked'), [('1', True), ('2', False)])
def test_no_process_imports_tensorflow_and_few_import_jax(
  shell: Shell, threads: str, forked: bool
):
  shell.extra['OMP_NUM_THREADS'] = threads
  tables = shell.place / 'tables'
  tables.mkdir()
  shell.customize(WITNESS.format(folder=str(tables)))
  code, out, err = shell.run(
    'run', 'dqn', '--replay=native', '--name=mine', '--max_actor_steps=4000', *SMALL
  )
  assert (code, err) == (0, ''), out
  run = shell.place / 'runs' / 'mine'
  assert steps(run, 'learner_steps') > 0

  def modules(file: Path) -> set[str]:
    return set(file.read_text().split())

  by_node = {node: modules(tables / str(pids(run, node)[0])) for node in NODES}
  by_node['launcher'] = modules(tables / str(shell.started[0].pid))

  foreign = {node: names & FOREIGN for node, names in by_node.items()}
  assert not any(foreign.values()), foreign
  few = {'actor-0', 'actor-1', 'evaluator', 'launcher', 'learner'}
  # What is forked has what the launcher has, at no cost.
  expected = set(by_node) if forked else few
  assert {node for node, names in by_node.items() if 'jax' in names} == expected
  assert all('callsheet' in names for names in by_node.values())
