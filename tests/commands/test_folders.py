"""The folder of a run."""

from __future__ import annotations

import json
import os

import pytest

from callsheet.commands import folders
from callsheet.errors import UsageError


def test_make_and_read(tmp_path):
  folder = folders.make(
    str(tmp_path / 'a' / 'b'), {'agent': 'x', 'agent_config': {}, 'flags': {}}
  )
  assert folder.path == str(tmp_path / 'a' / 'b')
  assert folders.read_config(folder.path)['agent'] == 'x'


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert folders.make('a', {}).path == str(tmp_path / 'a')


def test_discard_takes_the_folders_above_that_it_made(tmp_path):
  (tmp_path / 'there').mkdir()
  folder = folders.make(str(tmp_path / 'there' / 'a' / 'b'), {})
  (tmp_path / 'there' / 'a' / 'b' / 'log').write_text('')
  folders.discard(folder)
  assert os.listdir(tmp_path) == ['there']
  assert os.listdir(tmp_path / 'there') == []


def test_discard_leaves_what_others_put_beside_it(tmp_path):
  folder = folders.make(str(tmp_path / 'a' / 'b'), {})
  (tmp_path / 'a' / 'other').write_text('')
  folders.discard(folder)
  assert os.listdir(tmp_path / 'a') == ['other']


def test_a_folder_that_exists_is_left_alone(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'kept').write_text('')
  with pytest.raises(UsageError, match='exists; take another --name'):
    folders.make(str(tmp_path / 'a'), {})
  assert os.listdir(tmp_path / 'a') == ['kept']


def test_a_name_that_is_too_long_leaves_no_folder_above(tmp_path):
  with pytest.raises(UsageError, match='File name too long'):
    folders.make(str(tmp_path / 'runs' / ('x' * 300)), {})
  assert os.listdir(tmp_path) == []


def test_full_disk_leaves_no_folder(tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(json, 'dump', full)
  with pytest.raises(UsageError, match='No space left on device'):
    folders.make(str(tmp_path / 'runs' / 'a'), {})
  assert os.listdir(tmp_path) == []


def test_metrics_that_were_cut_off(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"seconds": 1}\n{"seconds": 2}\n{"sec')
  assert folders.read_metrics(str(tmp_path)) == [{'seconds': 1}, {'seconds': 2}]
  assert folders.read_metrics(str(tmp_path / 'none')) == []


@pytest.mark.parametrize('text', ['', '[]', '{"agent": "dqn"}', '{'])
def test_config_of_no_run(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(UsageError, match='is not the folder of a run'):
    folders.read_config(str(tmp_path))
