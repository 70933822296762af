"""Runs the conformance suite of launch backends, and puts its table into README.md.

python scripts/conformance_table.py [--report junit.xml]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = 'tests/launch/test_backends.py'
BEGIN, END = '<!-- conformance: begin -->', '<!-- conformance: end -->'
PASSED, FAILED, SKIPPED = 'yes', '**no**', '-'


def outcomes(report: Path) -> dict[str, dict[str, str]]:
  """By backend and test, from a JUnit report."""
  found: dict[str, dict[str, str]] = {}
  for case in ElementTree.parse(report).iter('testcase'):
    match = re.fullmatch(r'test_(\w+)\[(.+)\]', case.attrib['name'])
    suite = SUITE.removesuffix('.py').replace('/', '.')
    if match is None or case.attrib['classname'] != suite:
      continue
    test, parameters = match.groups()
    # A backend's name comes first among the parameters.
    backend, _, _ = parameters.partition('-')
    kinds = {child.tag for child in case}
    outcome = PASSED
    if kinds & {'failure', 'error'}:
      outcome = FAILED
    elif 'skipped' in kinds:
      outcome = SKIPPED
    row = found.setdefault(backend, {})
    if row.get(test) != FAILED:
      row[test] = outcome
  return found


def table(found: dict[str, dict[str, str]]) -> str:
  """Rows the backends, columns the tests in the suite's order."""
  tests = list(dict.fromkeys(test for row in found.values() for test in row))
  head = ['', *(test.replace('_', ' ') for test in tests)]
  lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for backend, row in found.items():
    cells = [row.get(test, SKIPPED) for test in tests]
    lines.append('| ' + ' | '.join([f'`{backend}`', *cells]) + ' |')
  return '\n'.join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--report', type=Path, help='of a run that was made already')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    report = options.report or Path(folder, 'report.xml')
    if options.report is None:
      command = [sys.executable, '-m', 'pytest', SUITE, '-q', f'--junitxml={report}']
      subprocess.run(command, cwd=ROOT)
    made = table(outcomes(report))
  readme = ROOT / 'README.md'
  text = readme.read_text()
  begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
  readme.write_text(f'{text[:begin]}\n{made}\n{text[end:]}')


if __name__ == '__main__':
  main()
