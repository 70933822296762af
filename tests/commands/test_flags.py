"""Flags of an agent's config, and the page that shows them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from callsheet.agents import registry
from callsheet.commands import help
from callsheet.commands.flags import (
  config_names,
  define_config,
  new_flags,
  parse,
  read_config,
)
from callsheet.commands.main import main
from callsheet.errors import UsageError


@dataclass(frozen=True)
class Config:
  """Settings.

  Attributes:
    on: whether it is on.
    sizes: of the layers; a text that is too long for
      a single line, be it here or there.
    rate: per step.
    steps: None for all.
    name: a text.

  Raises:
    UsageError: never.
  """

  on: bool = True
  sizes: tuple[int, ...] = (8, 8)
  rate: float = 0.5
  steps: int | None = None
  name: str = 'x'
  made: list[int] | None = None


def read(*argv: str) -> Config:
  values = new_flags()
  define_config(values, Config)
  assert parse(values, argv) == []
  return read_config(values, Config)


@pytest.mark.parametrize(
  ('argv', 'config'),
  [
    ((), Config()),
    (('--on=false',), Config(on=False)),
    (('--noon',), Config(on=False)),
    (('--sizes=1,2,3',), Config(sizes=(1, 2, 3))),
    (('--sizes=',), Config(sizes=())),
    (('--rate', '1e-3'), Config(rate=1e-3)),
    (('--steps=7',), Config(steps=7)),
    (('--steps=none',), Config()),
    (('--name=None',), Config(name='None')),
  ],
)
def test_config(argv, config):
  assert read(*argv) == config


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ('--steps=1.5', "--steps takes an integer or none, got '1.5'"),
    ('--rate=none', "--rate takes a number, got 'none'"),
    ('--sizes=1;2', "--sizes takes integers with commas between them, got '1;2'"),
    ('--on=perhaps', "--on takes true or false, got 'perhaps'"),
    ('--rat=1', 'no flag --rat; did you mean --rate?'),
    ('--made=1', 'no flag --made; see --help'),
    ('--rate', 'Missing value for flag --rate'),
  ],
)
def test_config_that_is_refused(argv, message):
  with pytest.raises(UsageError) as refused:
    read(argv)
  assert str(refused.value) == message


def test_help_page():
  values = new_flags()
  define_config(values, Config)
  assert help.page(values, 'it x', {'all': config_names(Config)}).splitlines() == [
    'usage: it x',
    '',
    'all:',
    '  --on=true                     whether it is on.',
    '  --sizes=8,8' + ' ' * 19 + 'of the layers; a text that is too long for a single',
    '                                line, be it here or there.',
    '  --rate=0.5                    per step.',
    '  --steps=none                  None for all.',
    '  --name=x                      a text.',
  ]


def test_help_names_every_flag_and_says_something_of_each(capsys):
  with pytest.raises(SystemExit) as ended:
    main(['help', 'run', 'dqn'])
  assert ended.value.code == 0
  page = capsys.readouterr().out
  assert max(map(len, page.splitlines())) <= 88
  for name in ('env', 'backend', *config_names(registry.find('dqn').config)):
    (line,) = (line for line in page.splitlines() if line.startswith(f'  --{name}='))
    assert len(line.split()) > 1


@pytest.mark.parametrize('argv', [[], ['help'], ['--help'], ['-h']])
def test_help_of_all_commands(capsys, argv):
  with pytest.raises(SystemExit) as ended:
    main(argv)
  assert ended.value.code == 0
  out, err = capsys.readouterr()
  assert 'callsheet run AGENT' in out and 'callsheet eval RUN_FOLDER' in out
  assert err == ''


def test_help_of_one_command(capsys):
  for argv in (['run', '--help'], ['eval', '-h']):
    with pytest.raises(SystemExit) as ended:
      main(argv)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: callsheet {argv[0]} ')
