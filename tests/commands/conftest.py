"""The command line as its user has it: a process, with a place of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from callsheet.commands.main import main

REVERB = importlib.util.find_spec('reverb') is not None
collect_ignore = [] if REVERB else ['test_reverb_port.py']

_MARK = 'CALLSHEET_TEST'


@dataclass
class Shell:
  """Runs `callsheet` in `place`, with `place`/tmp for temporary files."""

  place: Path
  mark: str = field(default_factory=lambda: uuid.uuid4().hex)
  extra: dict[str, str] = field(default_factory=dict)
  started: list[subprocess.Popen[str]] = field(default_factory=list)

  def start(self, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
      [sys.executable, '-m', 'callsheet.commands.main', *arguments],
      cwd=self.place,
      env={
        **os.environ,
        'TMPDIR': str(self.place / 'tmp'),
        'JAX_PLATFORMS': 'cpu',
        'PYTHONFAULTHANDLER': '1',
        _MARK: self.mark,
        **self.extra,
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.started.append(process)
    return process

  def run(self, *arguments: str) -> tuple[int, str, str]:
    """As `end`, of a command that ends by itself."""
    return end(self.start(*arguments))

  def hide(self, *modules: str) -> None:
    """As if these were not installed, in every process that is started."""
    self.customize(
      'from importlib.machinery import PathFinder\n'
      'find = PathFinder.find_spec\n'
      'def find_spec(name, path=None, target=None):\n'
      f'  hidden = name.partition(".")[0] in {modules!r}\n'
      '  return None if hidden else find(name, path, target)\n'
      'PathFinder.find_spec = staticmethod(find_spec)\n'
    )

  def customize(self, code: str) -> None:
    """Runs this first in every process that is started, once a shell."""
    (self.place / 'site').mkdir()
    (self.place / 'site' / 'sitecustomize.py').write_text(code)
    behind = os.environ.get('PYTHONPATH')
    places = [str(self.place / 'site'), *([behind] if behind else [])]
    self.extra['PYTHONPATH'] = os.pathsep.join(places)

  def processes(self) -> list[int]:
    """Whatever still runs of all that was started here."""
    found = []
    for process in psutil.process_iter():
      try:
        if process.environ().get(_MARK) == self.mark:
          found.append(process.pid)
      except psutil.Error:
        pass
    return found


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
  """The exit code, standard output and standard error, without what Reverb says."""
  out, err = process.communicate(timeout=150)
  kept = (line for line in err.splitlines(True) if not line.startswith('[reverb/'))
  return process.returncode, out, ''.join(kept)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
  """The one line of a call that is refused."""
  with pytest.raises(SystemExit) as ended:
    main(argv)
  out, err = capsys.readouterr()
  assert (ended.value.code, out) == (2, '')
  assert err.startswith('callsheet: ') and err.endswith('\n') and err.count('\n') == 1
  return err.removeprefix('callsheet: ').strip()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
  """Fails a test that leaves a process or a temporary file.

  What its processes wrote is shown if it fails, and the stacks of those that still run.
  """
  (tmp_path / 'tmp').mkdir()
  shell = Shell(tmp_path)
  yield shell
  for process in shell.started:
    if process.poll() is None:
      process.send_signal(signal.SIGABRT)
    try:
      said = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
      process.kill()
      said = process.communicate()
    print(*said, sep='\n')
  wait_for(lambda: not shell.processes(), 15)
  assert os.listdir(tmp_path / 'tmp') == []


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
  until = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < until, 'timed out'
    time.sleep(0.1)
