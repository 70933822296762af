"""`callsheet graph`: the program of a run, drawn and not launched."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree

import pytest

from callsheet.commands.main import main
from tests.commands.conftest import refusal


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def shown(capsys, *argv: str) -> str:
  with pytest.raises(SystemExit) as ended:
    main(['graph', *argv])
  out, err = capsys.readouterr()
  assert (ended.value.code, err) == (0, '')
  return out


def test_the_program_of_a_run_in_each_language(capsys, place):
  text = shown(capsys, 'dqn', '--num_actors=8', '--hidden_sizes=8')
  assert text.startswith("program 'dqn': ") and '\nactor/7 ' in text
  assert 'n4["actor x8<br/>Actor"]' in shown(
    capsys, '--mermaid', 'dqn', '--num_actors=8'
  )
  dot = shown(capsys, 'dqn', '--dot', '--inference=server')
  assert dot.startswith('digraph "dqn" {') and 'label="inference\\nInf' in dot
  found = json.loads(shown(capsys, 'dqn', '--json', '--num_replays=2'))
  names = {node['name'] for node in found['nodes']}
  assert {'replay/0', 'replay/1', 'learner', 'evaluator'} <= names
  assert os.listdir(place) == []


def test_a_program_of_ones_own(capsys, place):
  (place / 'drawn_program.py').write_text(
    'from callsheet import Program\n'
    'class Node: pass\n'
    "program = Program('mine')\n"
    "program.add('only', Node)\n"
  )
  assert shown(capsys, 'drawn_program.py:program', '--mermaid') == (
    'flowchart LR\n  n0["only<br/>Node"]\n'
  )


def fake_dot(place, monkeypatch, script: str) -> None:
  """A Graphviz that does as the script says, and nothing else to be found."""
  (place / 'bin').mkdir()
  (place / 'bin' / 'dot').write_text(f'#!{shutil.which("sh")}\n{script}\n')
  (place / 'bin' / 'dot').chmod(0o755)
  cat = shutil.which('cat')
  assert cat is not None
  os.symlink(cat, place / 'bin' / 'cat')
  monkeypatch.setenv('PATH', str(place / 'bin'))


def test_svg_is_what_graphviz_makes_of_it(capsys, place, monkeypatch):
  fake_dot(place, monkeypatch, 'echo "$1"; cat')
  assert shown(capsys, 'dqn', '--svg=graph.svg') == ''
  first, *rest = (place / 'graph.svg').read_text().splitlines()
  assert (first, rest[0], rest[-1]) == ('-Tsvg', 'digraph "dqn" {', '}')


@pytest.mark.skipif(shutil.which('dot') is None, reason='Graphviz is not installed')
def test_graphviz_itself_takes_it(capsys, place):
  shown(capsys, 'dqn', '--svg=graph.svg', '--num_actors=6')
  drawn = xml.etree.ElementTree.parse(place / 'graph.svg').getroot()
  texts = [element.text for element in drawn.iter() if element.tag.endswith('}text')]
  assert drawn.tag.endswith('}svg') and {'actor x6', 'Learner'} <= set(texts)


def test_refused(capsys, place, monkeypatch):
  assert refusal(capsys, 'graph').startswith('expected one agent or FILE.py:PROGRAM, g')
  line = refusal(capsys, 'graph', 'dqn', '--dot', '--json')
  assert line.endswith('got --dot and --json')
  assert "no agent 'dqm'" in refusal(capsys, 'graph', 'dqm')
  fake_dot(place, monkeypatch, 'echo "no such thing" >&2; exit 1')
  line = refusal(capsys, 'graph', 'dqn', '--svg=x.svg')
  assert line == 'Graphviz could not draw it: no such thing'
  monkeypatch.setenv('PATH', str(place))
  line = refusal(capsys, 'graph', 'dqn', '--svg=x.svg')
  assert line.startswith("--svg needs Graphviz's `dot`, which is not there: apt-get in")
  assert os.listdir(place) == ['bin']
