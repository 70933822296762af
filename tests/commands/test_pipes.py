"""A reader that leaves early, as `head` does, is no reason for a traceback."""

from __future__ import annotations

import os

import pytest

from callsheet.commands import main
from tests.commands.conftest import Shell, end


# `envs` prints by rich, `help` by print; an error's line goes to the same pipe.
@pytest.mark.parametrize(
  'arguments', ['help run dqn', 'run dqn --help', 'envs', 'help']
)
def test_nobody_reads(shell: Shell, arguments: str):
  process = shell.start(*arguments.split())
  assert process.stdout is not None
  process.stdout.close()
  assert process.stderr is not None
  complaint = process.stderr.read()
  assert (process.wait(60), complaint) == (1, '')


def test_nobody_reads_a_complaint(shell: Shell):
  process = shell.start('rnu')
  assert process.stderr is not None
  process.stderr.close()
  assert process.wait(60) == 1


def test_a_reader_that_stays_gets_all(shell: Shell):
  code, out, err = end(shell.start('help', 'run', 'dqn'))
  assert (code, err) == (0, '')
  assert out.endswith('\n') and '--n_step=' in out


def test_another_pipe_is_not_passed_over(monkeypatch):
  def broken(argv):
    raise BrokenPipeError(32, 'Broken pipe')

  monkeypatch.setattr(main, '_command', broken)
  before = os.fstat(1)
  with pytest.raises(BrokenPipeError):
    main.main(['help'])
  assert os.fstat(1) == before
