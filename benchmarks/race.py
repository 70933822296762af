"""The race to a solved CartPole-v1, against the peers: one line of JSON.

python benchmarks/race.py --install              # the peers' environments, once
python benchmarks/race.py [--seeds 0 1 2] [--peers sb3 rejax] [--limit 180]

Wall seconds from the command, start-up included, to a mean return of 475 over 20 greedy
episodes and again over 20 fresh ones; and environment steps a second. Each entrant has
the machine to itself, its own library's configuration for this problem, and a check a
second after the last. Seeds are the outer loop. With `--results FILE` runs are kept,
and those that it has are not run again. $CALLSHEET_PEERS names the folder of the peers'
environments, `.venv-peers` beside this one by default. stderr tells what happens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import race_entrants
import race_figures

# Over the limit, for a driver that must come round to see that it is late.
GRACE = 20.0


def tell(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


class Ran(NamedTuple):
  """When a command began and ended (Unix time), its output, its exit code.

  The code is None where its time was up.
  """

  started: float
  ended: float
  output: str
  code: int | None

  @property
  def last_words(self) -> str:
    return (self.output.strip().splitlines() or ['nothing'])[-1][-300:]


def timed(
  command: list[str], seconds: float, folder: str, paths: str | None = None
) -> Ran:
  """Runs a command in a folder to its end, or ends it and all that it started.

  Args:
    command: to run.
    seconds: that it may take.
    folder: where it runs, and its output is kept.
    paths: its PYTHONPATH.
  """
  output = Path(folder) / 'output'
  with output.open('w') as file:
    started = time.time()
    process = subprocess.Popen(
      command,
      stdout=file,
      stderr=subprocess.STDOUT,
      stdin=subprocess.DEVNULL,
      cwd=folder,
      env=race_entrants.environment(paths),
      start_new_session=True,
    )
    family = {}
    try:
      while time.time() - started < seconds:
        # Noted while they can be found: orphans have no parent to ask.
        family.update({child.pid: child for child in descendants(process.pid)})
        with contextlib.suppress(subprocess.TimeoutExpired):
          process.wait(0.5)
          break
      ended, code = time.time(), process.poll()
      if code is None:
        interrupt(process)
    finally:
      end(process, family)
  return Ran(started, ended, output.read_text(errors='replace'), code)


def descendants(pid: int) -> list[psutil.Process]:
  try:
    return psutil.Process(pid).children(recursive=True)
  except psutil.NoSuchProcess:
    return []


def interrupt(process: subprocess.Popen[bytes]) -> None:
  """As Ctrl-C would, and waits a little."""
  process.send_signal(signal.SIGINT)
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(10)


def end(process: subprocess.Popen[bytes], family: dict[int, psutil.Process]) -> None:
  for child in family.values():
    # psutil knows a process by its start too: a pid that was used again is spared.
    with contextlib.suppress(psutil.NoSuchProcess):
      child.kill()
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def race_peer(name: str, seed: int, limit: float) -> dict[str, Any]:
  command = race_entrants.peer_command(name)
  with tempfile.TemporaryDirectory() as folder:
    options = [f'--seed={seed}', f'--limit={limit}', f'--started={time.time()}']
    ran = timed([*command, *options], limit + GRACE, folder)
  run = race_figures.peer_run(ran.output)
  if run is None or (not run['reached'] and ran.code not in (0, None)):
    return {'seed': seed, 'failed': f'exit code {ran.code}; last: {ran.last_words}'}
  return run


def race_callsheet(
  name: str, seed: int, limit: float, flags: tuple[str, ...] = ()
) -> dict[str, Any]:
  with tempfile.TemporaryDirectory() as folder:
    command = race_entrants.callsheet_command(name, folder)
    ran = timed(
      [*command, f'--seed={seed}', *flags],
      limit + GRACE,
      folder,
      str(race_entrants.SOURCE),
    )
    own = (*race_entrants.CALLSHEET_ENTRANTS[name], *flags)
    where = Path(folder) / 'run'
    run = race_figures.callsheet_run(where, seed, ran.started, ran.ended, own)
  if run is None or ran.code not in (0, None):
    return {'seed': seed, 'failed': f'exit code {ran.code}; last: {ran.last_words}'}
  run['reached'] = run['reached'] and run['seconds'] <= limit
  return run


class Results:
  """The runs so far, in a file if there is one."""

  def __init__(self, path: Path | None) -> None:
    self._path = path
    self.runs: dict[tuple[str, int, float], dict[str, Any]] = {}
    if path is not None and path.exists():
      for line in path.read_text().splitlines():
        self._keep(json.loads(line))

  def add(self, entrant: str, limit: float, run: dict[str, Any]) -> None:
    row = {'entrant': entrant, 'limit': limit, **run}
    self._keep(row)
    if self._path is not None:
      with self._path.open('a') as file:
        file.write(json.dumps(row) + '\n')

  def _keep(self, row: dict[str, Any]) -> None:
    self.runs[row['entrant'], row['seed'], row['limit']] = row


def race(options: argparse.Namespace) -> dict[str, Any]:
  absent = {
    name: 'not among --peers'
    for name in race_entrants.PEER_ENTRANTS
    if name not in options.peers
  }
  names = []
  for name in options.peers:
    if reason := race_entrants.missing(name):
      absent[name] = reason
      tell(f'{name}: {reason}')
    else:
      names.append(name)
  entrants = [*race_entrants.CALLSHEET_ENTRANTS, *names]
  results = Results(options.results)
  for seed in options.seeds:
    for name in entrants:
      if (name, seed, options.limit) in results.runs:
        continue
      own = name in race_entrants.CALLSHEET_ENTRANTS
      run = (race_callsheet if own else race_peer)(name, seed, options.limit)
      tell(f'{name}, seed {seed}: {json.dumps(run)}')
      results.add(name, options.limit, run)
  rows: dict[str, Any] = {}
  for name in entrants:
    runs = [results.runs[name, seed, options.limit] for seed in options.seeds]
    finished = [run for run in runs if 'failed' not in run]
    if len(finished) < len(runs):
      absent[name] = next(run['failed'] for run in runs if 'failed' in run)
    else:
      rows[name] = race_figures.summary(finished, options.limit)
      if name in race_entrants.PEER_ENTRANTS:
        rows[name]['check'] = race_entrants.PEER_ENTRANTS[name].check
      else:
        rows[name]['check'] = 'greedy, its evaluator, beside the training'
  gymnasium = [n for n in names if race_entrants.PEER_ENTRANTS[n].gymnasium]
  return {
    'benchmark': 'race',
    'target': 'CartPole-v1, mean return 475 over 20 episodes, and over 20 fresh ones',
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'seeds': options.seeds,
    **race_figures.compare(rows, gymnasium),
    'entrants': rows,
    'absent': absent,
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  everyone = list(race_entrants.PEER_ENTRANTS)
  parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
  parser.add_argument('--peers', nargs='*', choices=everyone, default=everyone)
  parser.add_argument('--limit', type=float, default=180.0, help='seconds of a run')
  parser.add_argument('--results', type=Path, help='keeps runs, for the next time')
  parser.add_argument('--install', action='store_true')
  options = parser.parse_args()
  if options.install:
    outcome = {}
    for name in options.peers:
      tell(f'installing {name} in {race_entrants.folder()}')
      outcome[name] = race_entrants.install(name) or 'installed'
    print(json.dumps({'benchmark': 'race', 'install': outcome}))
  else:
    print(json.dumps(race(options)))


if __name__ == '__main__':
  main()
