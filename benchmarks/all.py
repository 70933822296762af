"""Every benchmark, one after the other, and the page that shows what they found.

python benchmarks/all.py [--only replay end_to_end] [--rounds 5] [--page]

Each benchmark's line of JSON is kept in `benchmarks/results/`; `benchmarks/README.md`
is made of those lines and of nothing else. `--page` makes it anew without measuring.
Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from pages import PAGES, page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'results'
# The race has seeds, not rounds, and some of its peers take their time.
_INSTEAD = {'race': ['--limit', '60']}


def measure(name: str, rounds: int) -> dict[str, Any]:
  """Runs one benchmark; its figures, with what they were measured on.

  Raises:
    RuntimeError: it failed, or said nothing.
  """
  command = [sys.executable, str(HERE / f'{name}.py')]
  command += _INSTEAD.get(name, ['--rounds', str(rounds)])
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  lines = done.stdout.strip().splitlines()
  if done.returncode or not lines:
    raise RuntimeError(f'{name} ended with {done.returncode}: {done.stdout[-500:]}')
  figures: dict[str, Any] = json.loads(lines[-1])
  return {'machine': machine(), 'rounds': rounds, **figures}


def machine() -> str:
  """Processor, cores and Python, in words."""
  model = platform.processor() or platform.machine()
  for line in Path('/proc/cpuinfo').read_text().splitlines():
    if line.startswith('model name'):
      model = line.partition(':')[2].strip()
      break
  cores = len(os.sched_getaffinity(0))
  return f'{cores} cores of {model}, Python {platform.python_version()}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', nargs='+', choices=list(PAGES), default=list(PAGES))
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--page', action='store_true', help='measure nothing')
  options = parser.parse_args()
  RESULTS.mkdir(exist_ok=True)
  failed = []
  if not options.page:
    for name in options.only:
      print(f'measuring {name}', file=sys.stderr, flush=True)
      try:
        figures = measure(name, options.rounds)
      except RuntimeError as error:
        failed.append(str(error))
        continue
      (RESULTS / f'{name}.json').write_text(json.dumps(figures, indent=1) + '\n')
  found = {
    name: json.loads(path.read_text())
    for name in PAGES
    if (path := RESULTS / f'{name}.json').is_file()
  }
  (HERE / 'README.md').write_text(page(found))
  for complaint in failed:
    print(complaint, file=sys.stderr)
  sys.exit(bool(failed))


if __name__ == '__main__':
  main()
