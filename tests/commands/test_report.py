"""The summary and the learning curve."""

from __future__ import annotations

import math

import pytest
from matplotlib import image

from callsheet.commands import report

ROW = {
  'seconds': 50.0,
  'actor_steps': 21011,
  'learner_steps': 5000,
  'samples_per_insert': 30.36,
  'actor/return': 80.0,
  'evaluator/return': 138.04,
  'evaluator/best_return': 139.65,
  'evaluator/actor_steps': 20000,
}


def test_summary(tmp_path):
  for name in ('config.json', 'logs', 'metrics.csv'):
    (tmp_path / name).write_text('')
  assert report.summary(str(tmp_path), [{'seconds': 1.0}, ROW], 475.0).splitlines() == [
    'not solved: mean return 138.0 (best 139.7), target 475',
    '  21,011 environment steps (420/s), 5,000 learner steps (100/s) in 50 s; '
    'samples per insert 30.4',
    f'  config.json, logs, metrics.csv: {tmp_path}',
    f'  play it: callsheet eval {tmp_path}',
  ]


@pytest.mark.parametrize(
  ('row', 'target', 'outcome'),
  [
    (ROW, 138.0, 'solved: mean return 138.0, target 138'),
    (ROW, None, 'ended with a mean return of 138.0'),
    ({'seconds': 0.0}, 475, 'ended before the first evaluation'),
  ],
)
def test_outcome(tmp_path, row, target, outcome):
  assert report.summary(str(tmp_path), [row], target).splitlines()[0] == outcome


def test_summary_of_nothing():
  assert report.summary('here', [], 1.0) == (
    'ended before there were figures; what there is: here'
  )


def test_what_has_begun():
  assert report.has_begun(ROW)
  assert not report.has_begun({'seconds': 1.0})
  assert not report.has_begun({'seconds': 1.0, 'actor_steps': 0})
  acted = {'seconds': 1.0, 'actor_steps': 9, 'learner_steps': 0}
  assert report.has_begun(acted) and not report.has_learnt(acted)
  assert report.has_learnt(ROW)


@pytest.mark.parametrize('rows', [[{'seconds': 1.0}], [{'actor_steps': 3}, ROW]])
def test_curve(tmp_path, rows):
  report.draw_curve(str(tmp_path), rows, 'a title')
  pixels = image.imread(tmp_path / 'curve.png')
  height, width, _ = pixels.shape
  assert math.isclose(width / height, 1.6, abs_tol=0.01)
  assert pixels.std() > 0.05
