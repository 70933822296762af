"""`callsheet envs`, and environments on the other commands' lines."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from callsheet.commands import environment_options
from callsheet.commands.main import main
from callsheet.errors import UsageError
from callsheet.nodes.environment_families import FAMILIES
from tests.commands.conftest import refusal

ENVPOOL = importlib.util.find_spec('envpool') is not None


def listed(capsys, *argv):
  with pytest.raises(SystemExit) as caught:
    main(['envs', *argv])
  assert caught.value.code == 0
  return capsys.readouterr().out


def test_every_family_is_there_with_its_version_or_the_way_to_it(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '300')
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda each: None if each == 'bsuite' else find(each)
  )
  rows = listed(capsys).splitlines()
  for family in FAMILIES:
    (row,) = (row for row in rows if row.startswith(f'{family.name} '))
    if family.name == 'bsuite' or not family.installed():
      assert ' no ' in row and row.rstrip().endswith(family.way_out())
    else:
      names = family.names()
      assert f' {family.version()} ' in row and f' {len(names)}: ' in row
      assert names[0] in row


@pytest.mark.parametrize(
  ('pattern', 'expected'),
  [
    (
      'breakout',
      ['ALE/Breakout-v5', 'MinAtar/Breakout-v1', *['envpool/Breakout-v5'] * ENVPOOL],
    ),
    ('minatar/s*', ['MinAtar/Seaquest-v1', 'MinAtar/SpaceInvaders-v1']),
    ('bsuite/catch/?0', ['bsuite/catch/10']),
    ('MASKED', ['MaskedCartPole-v1']),
  ],
)
def test_a_pattern_lists_all_that_match(capsys, pattern, expected):
  assert listed(capsys, pattern).splitlines() == expected


def test_what_matches_nothing_and_what_is_too_much(capsys):
  line = refusal(capsys, 'envs', 'BipedalWalkr')
  assert "matches 'BipedalWalkr': did you mean BipedalWalker-v3" in line
  line = refusal(capsys, 'envs', 'a', 'b')
  assert line.endswith(
    'expected one pattern, got a b; right is: callsheet envs [PATTERN]'
  )


def test_its_page_of_help(capsys):
  with pytest.raises(SystemExit):
    main(['help', 'envs'])
  assert capsys.readouterr().out.startswith('usage: callsheet envs [PATTERN]')


@pytest.mark.parametrize(
  ('text', 'options'),
  [
    (None, {}),
    ('', {}),
    ('a=1', {'a': 1}),
    ('a=false,b=0.5,c=x', {'a': False, 'b': 0.5, 'c': 'x'}),
  ],
)
def test_options_are_read(text, options):
  assert environment_options.read(text) == options


@pytest.mark.parametrize('text', ['a', '=1', 'a=1,b', '1=2'])
def test_other_options_are_refused(text):
  with pytest.raises(UsageError, match=r'--env_options takes name=value with commas'):
    environment_options.read(text)


@pytest.mark.parametrize(
  ('argv', 'expected'),
  [
    ('--env=MinAtar/Breakot-v1', "'MinAtar/Breakot-v1': did you mean MinAtar/Break"),
    ('--env=Pendulum-v1', 'Pendulum-v1: dqn: the action is BoundedArray'),
    ('--env=ALE/Pong-v5 --env_options=x=1', "ALE/Pong-v5 has no option 'x'; it has "),
    ('--env_options=x', '--env_options takes name=value with commas between them'),
    ('--env=Hopper-v2', 'Hopper-v2 can not be made: make_gymnasium('),
  ],
)
def test_a_run_refuses_its_environment(capsys, tmp_path, monkeypatch, argv, expected):
  monkeypatch.chdir(tmp_path)
  assert expected in refusal(capsys, 'run', 'dqn', *argv.split())
  assert list(tmp_path.iterdir()) == []


def test_a_run_evaluates_with_true_rewards(tmp_path, monkeypatch):
  """The actors' rewards are clipped; options reach both, and the run's folder."""
  from callsheet.commands import preparing, run_flags

  monkeypatch.chdir(tmp_path)
  values = run_flags.run_flags()
  from callsheet.agents import registry
  from callsheet.commands.flags import define_config, parse

  define_config(values, registry.find('dqn').config)
  parse(values, ['--env=ALE/Pong-v5', '--env_options=frame_skip=2'])
  prepared = preparing.prepare('dqn', values)
  makers = {}
  for node in prepared.program.plan().nodes:
    for argument in [*node.args, *node.kwargs.values()]:
      if type(argument).__name__ == 'MakeAtari':
        makers[node.name] = argument
  assert not makers['actor/0'].evaluation and makers['evaluator'].evaluation
  assert makers['actor/0'].frame_skip == makers['evaluator'].frame_skip == 2
  assert json.dumps(prepared.config['flags']['env_options']) == '"frame_skip=2"'


def test_listing_imports_no_tensorflow():
  code = (
    'import sys; from callsheet.commands.envs import envs; '
    "envs(['pong']); print('tensorflow' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=90
  )
  assert done.stdout.splitlines()[-1:] == ['False'], done.stderr
