"""pdb at exceptions and breakpoints of nodes, wherever they run on this machine."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time

import pytest


def typed(launched, backend: str, program: str, *lines: bytes) -> tuple[int, str]:
  """What is seen on the terminal, and elsewhere, of a program that is debugged."""
  terminal, theirs = pty.openpty()
  seen: list[bytes] = []

  def watch() -> None:
    while True:
      try:
        seen.append(os.read(terminal, 4096))
      except OSError:  # Nobody has its other end open any more.
        return

  process = launched(backend, program, stdin=theirs)
  watching = threading.Thread(target=watch, daemon=True)
  watching.start()
  time.sleep(4)  # Longer than the deadline: whoever debugs has time to look.
  for line in lines:
    os.write(terminal, line)
  output, _ = process.communicate(timeout=60)
  os.close(theirs)
  watching.join(10)
  os.close(terminal)
  return process.returncode, output + b''.join(seen).decode()


@pytest.mark.parametrize('name', ['threads', 'processes', 'forked'])
def test_post_mortem_on_a_terminal(launched, name):
  code, seen = typed(launched, f'{name}-pdb', 'failing', b'p secret * 2\n', b'q\n')
  assert "node 'failing': tests.launch.services.Oops: with 41" in seen
  assert '-> raise Oops(' in seen and '82' in seen
  assert code == 1 and 'NodeFailed' in seen


@pytest.mark.parametrize('name', ['processes', 'forked'])
def test_breakpoint_in_a_process(launched, name):
  code, seen = typed(launched, f'{name}-pdb', 'debugged', b'p secret * 2\n', b'c\n')
  assert '82' in seen and 'the answer is 42' in seen, seen
  assert code == 0


@pytest.mark.parametrize('name', ['threads', 'forked'])
def test_post_mortem_with_a_script_on_standard_input(launched, name):
  process = launched(f'{name}-pdb', 'failing', stdin=subprocess.PIPE)
  output, _ = process.communicate('p secret * 2\nq\n', timeout=60)
  assert '-> raise Oops(' in output and '82' in output, output
  assert process.returncode == 1


@pytest.mark.parametrize('name', ['threads', 'forked'])
def test_nobody_answers_the_debugger(launched, name):
  process = launched(f'{name}-pdb', 'failing', stdin=subprocess.DEVNULL)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 1 and 'Oops: with 41' in output
