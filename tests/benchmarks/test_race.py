"""The race reads its runs and sums them up as it says."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'benchmarks'
FILES = ('race_entrants', 'race_figures', 'race')


@pytest.fixture(scope='module')
def modules() -> Iterator[dict[str, ModuleType]]:
  """The race's files; that folder isn't on the path, for its names hide packages."""
  loaded = {}
  for name in FILES:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f'{name}.py')
    assert spec is not None and spec.loader is not None
    loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded[name])
  yield loaded
  for name in FILES:
    del sys.modules[name]


@pytest.fixture
def figures(modules: dict[str, ModuleType]) -> ModuleType:
  return modules['race_figures']


def run(seed: int, seconds: float, reached: bool = True, steps: int = 100) -> Any:
  return {
    'seed': seed,
    'reached': reached,
    'seconds': seconds,
    'training_seconds': seconds / 2,
    'steps': steps,
    'config': 'c',
    'versions': {'python': '3.11.7'},
  }


def test_a_run_is_found_among_other_output(figures: ModuleType) -> None:
  reported = {'seed': 1, 'seconds': 2.5}
  lines = [
    'the race is on',
    f'race {json.dumps({"seed": 0})}',
    'SPS: 12',
    f'race {json.dumps(reported)}',
    'race over',
  ]
  output = '\n'.join(lines)
  assert figures.peer_run(output) == reported
  assert figures.peer_run('Segmentation fault\n') is None


def test_sums_up_three_seeds(figures: ModuleType) -> None:
  runs = [run(0, 30.0, steps=300), run(1, 10.0, steps=400), run(2, 20.0, steps=500)]
  row = figures.summary(runs, limit=60.0)
  assert (row['min'], row['seconds'], row['max']) == (10.0, 20.0, 30.0)
  assert row['reached'] == '3 of 3'
  assert row['by_seed'] == {'0': 30.0, '1': 10.0, '2': 20.0}
  # 300 / 15, 400 / 5 and 500 / 10.
  assert row['steps_per_s'] == 50
  assert row['steps'] == 400


def test_a_run_that_did_not_get_there_counts_as_the_slowest(
  figures: ModuleType,
) -> None:
  one = [run(0, 30.0), run(1, 61.0, reached=False), run(2, 20.0)]
  row = figures.summary(one, limit=60.0)
  assert (row['min'], row['seconds'], row['max']) == (20.0, 30.0, None)
  assert row['by_seed']['1'] is None
  two = [run(0, 30.0), run(1, 61.0, reached=False), run(2, 61.0, reached=False)]
  row = figures.summary(two, limit=60.0)
  assert (row['min'], row['seconds'], row['max']) == (30.0, None, None)
  assert row['reached'] == '1 of 3'


def test_compares_with_the_fastest_peer_of_each_kind(figures: ModuleType) -> None:
  entrants = {
    'callsheet': {'seconds': 20.0, 'steps_per_s': 600},
    'callsheet_acting': {'seconds': None, 'steps_per_s': 9_000},
    'slow': {'seconds': 50.0, 'steps_per_s': 1_500},
    'device': {'seconds': 30.0, 'steps_per_s': 80_000},
    'never': {'seconds': None, 'steps_per_s': 3_000},
  }
  found = figures.compare(entrants, gymnasium=['slow', 'never'])
  assert found == {
    'fastest_peer': 'device',
    'times_as_fast_to_target': 1.5,
    'beats': ['device', 'slow'],
    'fastest_gymnasium_peer': 'never',
    'callsheet_steps_ratio': 0.2,
    'callsheet_acting_steps_ratio': 3.0,
  }


def test_compares_with_nobody(figures: ModuleType) -> None:
  assert figures.compare({'callsheet': {'seconds': 20.0, 'steps_per_s': 6}}, []) == {}


def test_reads_a_run_of_callsheet(figures: ModuleType, tmp_path: Path) -> None:
  policy = tmp_path / 'checkpoint' / 'policy'
  policy.mkdir(parents=True)
  os.utime(policy, (1_021.5, 1_021.5))
  rows = [
    {'seconds': 1.0, 'actor_steps': 0, 'learner_steps': 0},
    {'seconds': 4.0, 'actor_steps': 200, 'learner_steps': 0},
    {'seconds': 14.0, 'actor_steps': 5_200, 'learner_steps': 900}
    | {'evaluator/return': 480.5},
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  described = {'target_return': 475.0, 'python': '3.12.1', 'versions': {'jax': '0.9'}}
  (tmp_path / 'config.json').write_text(json.dumps(described))
  found = figures.callsheet_run(tmp_path, 7, 1_000.0, 1_024.0, ['--n_step=5'])
  assert found['config'].endswith('defaults --n_step=5')
  assert found['learner_steps'] == 900
  assert found['reached'] and found['seed'] == 7
  assert (found['seconds'], found['seconds_to_exit']) == (21.5, 24.0)
  assert figures.steps_per_second(found) == 500.0
  assert found['versions'] == {'python': '3.12.1', 'jax': '0.9'}
  rows[-1]['evaluator/return'] = 474.9
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  found = figures.callsheet_run(tmp_path, 7, started=1_000.0, ended=1_024.0)
  assert not found['reached'] and found['seconds'] == 24.0


def test_a_run_that_left_nothing(figures: ModuleType, tmp_path: Path) -> None:
  assert figures.callsheet_run(tmp_path, 0, started=0.0, ended=1.0) is None


def test_runs_that_are_kept_are_read_again(
  modules: dict[str, ModuleType], tmp_path: Path
) -> None:
  race, path = modules['race'], tmp_path / 'runs.jsonl'
  first = race.Results(path)
  first.add('sb3', 60.0, run(0, 9.0))
  first.add('sb3', 60.0, run(1, 8.0))
  again = race.Results(path)
  assert set(again.runs) == {('sb3', 0, 60.0), ('sb3', 1, 60.0)}
  assert again.runs['sb3', 1, 60.0]['seconds'] == 8.0


def test_each_peer_has_a_driver_and_pins(modules: dict[str, ModuleType]) -> None:
  entrants = modules['race_entrants']
  for peer in entrants.PEER_ENTRANTS.values():
    assert (entrants.PEERS / f'{peer.driver}.py').exists()
    pins = (entrants.PEERS / f'{peer.driver}.txt').read_text().split()
    assert pins and all('==' in pin for pin in pins)


def test_a_peer_that_is_not_installed_says_so(
  modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv('CALLSHEET_PEERS', str(tmp_path))
  assert 'not installed' in modules['race_entrants'].missing('sb3')


def test_what_a_command_left_running_is_ended(
  modules: dict[str, ModuleType], tmp_path: Path
) -> None:
  import psutil

  # A child in a session of its own, as some libraries start theirs.
  script = (
    'import subprocess, sys, time\n'
    'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],\n'
    '                         start_new_session=True)\n'
    'print(child.pid, flush=True)\n'
    'time.sleep(1.5)\n'
  )
  command = [sys.executable, '-c', script]
  ran = modules['race'].timed(command, 20.0, str(tmp_path))
  assert ran.started < ran.ended and ran.code == 0
  child, patience = int(ran.output), time.time() + 10
  while psutil.pid_exists(child) and time.time() < patience:
    if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
      break
    time.sleep(0.05)
  assert (
    not psutil.pid_exists(child)
    or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
  )


def test_a_command_whose_time_is_up(
  modules: dict[str, ModuleType], tmp_path: Path
) -> None:
  command = [
    sys.executable,
    '-c',
    'import time; print("on", flush=True); time.sleep(60)',
  ]
  ran = modules['race'].timed(command, 1.5, str(tmp_path))
  assert ran.code is None and ran.output.startswith('on\n')


@pytest.mark.timeout(300)
def test_callsheet_runs_and_is_read(modules: dict[str, ModuleType]) -> None:
  flags = ('--max_actor_steps=1500', '--min_replay_size=200', '--target_return=600')
  found = modules['race'].race_callsheet('callsheet', 3, 240.0, flags)
  assert 'failed' not in found, found
  assert not found['reached'] and found['seed'] == 3
  assert found['steps'] >= 1_500
  assert found['versions']['jax']
