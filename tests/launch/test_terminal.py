"""Lines of nodes on one terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from callsheet.launch import Terminal


def test_each_line_has_its_nodes_name_before_it():
  screen = io.StringIO()
  terminal = Terminal(Console(file=screen, width=20))
  terminal.say('actor/0', 'a line that is longer than the terminal is wide')
  terminal.say('replay', '\x1b[31mred\x1b[0m [not a tag]')
  assert screen.getvalue().splitlines() == [
    'actor/0 | a line that is longer than the terminal is wide',
    'replay | red [not a tag]',
  ]


class Gone(io.StringIO):
  def __init__(self, error: Exception) -> None:
    super().__init__()
    self.error, self.asked = error, 0

  def write(self, text: str) -> int:
    self.asked += 1
    raise self.error


class Exits(Console):
  def on_broken_pipe(self) -> None:
    raise SystemExit(1)  # as rich does, but leaving the test's own output alone


@pytest.mark.parametrize('error', [BrokenPipeError(), OSError(5, 'I/O error')])
def test_a_terminal_that_has_gone_is_no_node_s_fault(error):
  screen = Gone(error)
  Terminal(Exits(file=screen)).say('replay', 'a line')
  assert screen.asked > 0
