"""Where nodes are threads, what each prints is in a file of its own, too."""

from __future__ import annotations

import sys
import threading

import pytest

from callsheet import Program
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Threads, launch

pytestmark = pytest.mark.timeout(60)


class Talker:
  """Writes whole lines: what two threads print in pieces is mixed on a terminal."""

  def __init__(self, word: str) -> None:
    self._word = word

  def run(self) -> None:
    for index in range(50):
      sys.stdout.write(f'{self._word} {index}\n')
    sys.stderr.write(f'{self._word} complains\n')
    helper = threading.Thread(
      target=sys.stdout.write, args=(f'helper of {self._word}\n',)
    )
    helper.start()
    helper.join()


class Broken:
  def run(self) -> None:
    print('so far', end='')
    raise ValueError('no further')


def test_each_in_its_file_and_all_on_the_terminal(tmp_path, capsys):
  program = Program('talk')
  with program.group('talker'):
    program.add('talker', Talker, 'one')
    program.add('talker', Talker, 'two')
  before = sys.stdout, sys.stderr
  launch(program, Threads(log_directory=str(tmp_path / 'logs')))
  assert (sys.stdout, sys.stderr) == before
  out, err = capsys.readouterr()
  for index, word in enumerate(('one', 'two')):
    lines = (tmp_path / 'logs' / f'talker-{index}.log').read_text().splitlines()
    assert lines[0].startswith('[callsheet 20') and lines[0].endswith('threads start')
    assert lines[1:] == [*(f'{word} {i}' for i in range(50)), f'{word} complains']
    assert f'{word} 49' in out and f'{word} complains' in err
  others = (tmp_path / 'logs' / 'talk.log').read_text()
  assert sorted(others.splitlines()) == ['helper of one', 'helper of two']


def test_a_failure_is_in_the_log_and_says_where_that_is(tmp_path):
  program = Program('talk')
  program.add('broken', Broken)
  with pytest.raises(NodeFailed) as caught:
    launch(program, Threads(log_directory=str(tmp_path)))
  assert caught.value.log == str(tmp_path / 'broken.log')
  text = (tmp_path / 'broken.log').read_text()
  assert 'so far' in text and 'ValueError: no further' in text


def test_a_folder_that_can_not_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  program = Program('talk')
  program.add('talker', Talker, 'one')
  with pytest.raises(UsageError, match=r'can not be made \(Not a dir.*Threads\(log_d'):
    launch(program, Threads(log_directory=str(tmp_path / 'file' / 'x')))
