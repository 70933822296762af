"""What mypy says of the samples beside this file, and what `Program.add` says."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from callsheet.errors import ArgumentError, EdgeError, NotLaunched

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLES = [HERE / 'right.py', *sorted(HERE.glob('wrong_*.py'))]


def marked(sample: Path) -> Counter[tuple[str, int, str]]:
  found: Counter[tuple[str, int, str]] = Counter()
  for number, line in enumerate(sample.read_text().splitlines(), 1):
    mark = re.search(r'# error: (.*)$', line)
    for code in mark.group(1).split(', ') if mark else []:
      found[sample.name, number, code] += 1
  return found


@pytest.mark.timeout(300)
def test_mypy_refuses_exactly_the_marked_lines(tmp_path: Path) -> None:
  done = subprocess.run(
    [sys.executable, '-m', 'mypy', '--strict', '--no-error-summary']
    + ['--config-file', str(ROOT / 'pyproject.toml'), '--cache-dir', str(tmp_path)]
    + [str(sample) for sample in SAMPLES],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=280,
  )
  said: Counter[tuple[str, int, str]] = Counter()
  for line in done.stdout.splitlines():
    error = re.fullmatch(r'(.*?):(\d+): error: .*\[([a-z-]+)\]', line)
    if error:
      said[Path(error.group(1)).name, int(error.group(2)), error.group(3)] += 1
    else:
      assert ': note: ' in line, done.stdout
  assert done.stderr == ''
  assert said == sum((marked(sample) for sample in SAMPLES), Counter())


def test_every_wrong_sample_marks_an_error() -> None:
  assert not marked(HERE / 'right.py')
  assert all(marked(sample) for sample in SAMPLES[1:])


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  monkeypatch.syspath_prepend(str(HERE))
  yield
  sys.modules.pop('services', None)


@pytest.mark.usefixtures('importable')
def test_the_right_sample_is_declared() -> None:
  plan = runpy.run_path(str(HERE / 'right.py'))['program'].plan()
  assert plan.node('boss').callees == ('worker/0', 'worker/1', 'worker/2', 'counter')


@pytest.mark.usefixtures('importable')
@pytest.mark.parametrize(
  ('sample', 'error'),
  [
    ('wrong_service.py', EdgeError),
    ('wrong_argument.py', ArgumentError),
    ('wrong_missing.py', ArgumentError),
    ('wrong_method.py', NotLaunched),
    ('wrong_forward.py', EdgeError),
  ],
)
def test_declaring_a_wrong_sample_is_refused_too(
  sample: str, error: type[Exception]
) -> None:
  first = min(line for _, line, _ in marked(HERE / sample))
  with pytest.raises(error) as caught:
    runpy.run_path(str(HERE / sample))
  inside = [step for step in caught.traceback if Path(str(step.path)).name == sample]
  assert inside[0].lineno + 1 == first
