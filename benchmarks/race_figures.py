"""What the race makes of its runs: reading them, and summing them up.

A run is a dict as a peer's driver prints it (see peers/target.py); `callsheet_run`
makes the same of what `callsheet run` has left.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Mapping[str, Any]

PREFIX = 'race '
OWN = 'callsheet'


def peer_run(output: str) -> dict[str, Any] | None:
  """What a driver reported among whatever its library printed, or None."""
  for line in reversed(output.splitlines()):
    if line.startswith(PREFIX + '{'):
      run: dict[str, Any] = json.loads(line.removeprefix(PREFIX))
      return run
  return None


def callsheet_run(
  folder: Path, seed: int, started: float, ended: float, flags: Sequence[str] = ()
) -> dict[str, Any] | None:
  """The run whose folder this is; None where it has no figures.

  Args:
    folder: of the run: config.json, metrics.jsonl, checkpoint/policy.
    seed: of the run.
    started: when the command was given, Unix time.
    ended: when it was over, Unix time.
    flags: what it was told beyond its defaults.
  """
  metrics = folder / 'metrics.jsonl'
  rows = [json.loads(line) for line in _lines(metrics)]
  if not rows:
    return None
  config = json.loads((folder / 'config.json').read_text())
  last = rows[-1]
  result, target = last.get('evaluator/return'), config['target_return']
  reached = result is not None and target is not None and result >= target
  acting = [row for row in rows if row['actor_steps'] > 0] or [last]
  # The policy that reaches the target is saved at once, and last of all.
  policy = folder / 'checkpoint' / 'policy'
  at_target = policy.stat().st_mtime if reached and policy.exists() else ended
  return {
    'seed': seed,
    'reached': reached,
    'seconds': at_target - started,
    'seconds_to_exit': ended - started,
    'training_seconds': last['seconds'] - acting[0]['seconds'],
    'training_steps': last['actor_steps'] - acting[0]['actor_steps'],
    'steps': last['actor_steps'],
    'learner_steps': last.get('learner_steps', 0),
    'config': ' '.join(['dqn, processes, native replay, defaults', *flags]),
    'versions': {'python': config['python'], **config['versions']},
  }


def _lines(path: Path) -> list[str]:
  return path.read_text().splitlines() if path.exists() else []


def steps_per_second(run: Run) -> float | None:
  """Environment steps of the training a second, start-up and checks left out."""
  steps, seconds = run.get('training_steps', run['steps']), run['training_seconds']
  return steps / seconds if seconds > 0 else None


def summary(runs: Sequence[Run], limit: float) -> dict[str, Any]:
  """One entrant: median, least and most over its seeds.

  A run that didn't reach the target counts as the limit; the median is null where
  it would be such a one.
  """
  times = sorted(run['seconds'] if run['reached'] else limit for run in runs)
  reached = sum(bool(run['reached']) for run in runs)
  rates = [rate for run in runs if (rate := steps_per_second(run)) is not None]
  middle = statistics.median(times)
  # The slower half isn't known where it was cut off.
  known = reached * 2 > len(runs)
  return {
    'seconds': round(middle, 2) if known else None,
    'min': round(times[0], 2) if reached else None,
    'max': round(times[-1], 2) if reached == len(runs) else None,
    'limit': limit,
    'reached': f'{reached} of {len(runs)}',
    'by_seed': {
      str(run['seed']): round(run['seconds'], 2) if run['reached'] else None
      for run in runs
    },
    'steps': round(statistics.median(run['steps'] for run in runs)),
    'steps_per_s': round(statistics.median(rates)) if rates else None,
    'learner_steps': _middle([run.get('learner_steps') for run in runs]),
    'seconds_to_exit': _middle([run.get('seconds_to_exit') for run in runs]),
    'startup_seconds': _middle([run.get('startup_seconds') for run in runs]),
    'config': runs[0]['config'],
    'versions': runs[0]['versions'],
  }


def _middle(figures: Sequence[float | None]) -> float | None:
  known = [figure for figure in figures if figure is not None]
  return round(statistics.median(known), 2) if known else None


def compare(
  entrants: Mapping[str, Mapping[str, Any]], gymnasium: Sequence[str]
) -> dict[str, Any]:
  """Callsheet beside its peers.

  Args:
    entrants: `summary` of each, Callsheet's own ones among them.
    gymnasium: the peers that step their environments in Python.
  """
  peers = {name: row for name, row in entrants.items() if not name.startswith(OWN)}
  timed = {name: row['seconds'] for name, row in peers.items() if row['seconds']}
  rates = {
    name: row['steps_per_s']
    for name, row in peers.items()
    if name in gymnasium and row['steps_per_s']
  }
  found: dict[str, Any] = {}
  own = entrants.get(OWN, {}).get('seconds')
  if timed:
    fastest = min(timed, key=lambda name: timed[name])
    found['fastest_peer'] = fastest
    found['times_as_fast_to_target'] = _ratio(timed[fastest], own)
    found['beats'] = sorted(n for n, s in timed.items() if own and own < s)
  if rates:
    fastest = max(rates, key=lambda name: rates[name])
    found['fastest_gymnasium_peer'] = fastest
    for name, row in entrants.items():
      if name.startswith(OWN):
        found[f'{name}_steps_ratio'] = _ratio(row['steps_per_s'], rates[fastest])
  return found


def _ratio(one: float | None, other: float | None) -> float | None:
  return round(one / other, 2) if one and other else None
