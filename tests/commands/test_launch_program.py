"""`callsheet launch`, and the flags of launch backends."""

from __future__ import annotations

import dataclasses

import pytest

from callsheet.commands import backends
from callsheet.commands.flags import new_flags, parse
from callsheet.commands.main import main
from callsheet.errors import UsageError
from callsheet.launch import Processes, Ssh

PROGRAM = """
from callsheet import Program

class Greeter:
  def __init__(self, path):
    self.path = path
  def run(self):
    open(self.path, 'w').write('hello')

def make():
  program = Program('greeting')
  program.add('greeter', Greeter, {path!r})
  return program

program = make()
number = 3
"""


@pytest.fixture
def file(tmp_path) -> str:
  path = tmp_path / f'greeting_{tmp_path.name}.py'.replace('-', '_')
  path.write_text(PROGRAM.format(path=str(tmp_path / 'greeted')))
  return str(path)


def command(*argv: str) -> object:
  with pytest.raises(SystemExit) as ended:
    main(['launch', *argv])
  return ended.value.code


def read(*argv: str) -> object:
  values = new_flags()
  backends.define(values)
  assert parse(values, argv) == []
  return backends.read(values, 'logs')


@pytest.mark.parametrize('name', ['program', 'make'])
@pytest.mark.parametrize('backend', ['threads', 'processes'])
def test_launches_a_program_of_ones_own(file, tmp_path, name, backend):
  assert command(f'{file}:{name}', f'--backend={backend}') == 0
  assert (tmp_path / 'greeted').read_text() == 'hello'


@pytest.mark.parametrize(
  ('where', 'complaint'),
  [
    ('nowhere.py:program', "there is no file 'nowhere.py'"),
    ('no.such.module:program', "no module 'no.such.module'"),
    ('{file}', 'names no program'),
    ('{file}:other', "has no 'other'"),
    ('{file}:number', 'is a int, expected a Program'),
  ],
)
def test_what_is_no_program(file, capsys, where, complaint):
  assert command(where.format(file=file)) == 2
  assert complaint in capsys.readouterr().err


def test_dry_run_starts_nothing(file, tmp_path, capsys):
  flags = ('--backend=ssh', '--ssh_hosts=a', '--ssh_command=sh,{host}', '--dry_run')
  assert command(f'{file}:program', *flags) == 0
  assert capsys.readouterr().out.startswith('greeter: sh a env ')
  assert not (tmp_path / 'greeted').exists()


@pytest.mark.parametrize('flag', ['--dry_run', '--detach'])
def test_what_a_local_backend_can_not(file, capsys, flag):
  assert command(f'{file}:program', flag) == 2
  assert f'{flag}: ' in capsys.readouterr().err


def test_options_are_flags():
  backend = read('--backend=ssh', '--ssh_hosts=a,b', '--ssh_silence=3')
  assert backend == Ssh(('a', 'b'), silence=3.0, log_directory='logs')
  assert read() == Processes(log_directory='logs')
  assert read('--processes_deadline=none').deadline is None


def test_an_option_of_another_backend_is_refused():
  with pytest.raises(UsageError, match=r'--ssh_hosts is an option of --backend=ssh'):
    read('--ssh_hosts=a')
  with pytest.raises(UsageError, match="no launch backend 'ssx'; did you mean 'ssh'"):
    read('--backend=ssx')


@pytest.mark.parametrize('name', sorted(backends.BACKENDS))
def test_every_option_of_every_backend_is_a_documented_flag(name):
  values = new_flags()
  backends.define(values)
  parse(values, [f'--backend={name}'])
  shown = [flag for flags in backends.sections(values).values() for flag in flags]
  assert all(values[flag].help for flag in shown)
  for field in dataclasses.fields(backends.BACKENDS[name]):
    if field.name not in ('name', 'log_directory', *backends.OWN):
      assert f'{name}_{field.name}' in shown
  assert values['pdb'].help
