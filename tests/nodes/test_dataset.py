"""A dataset in a replay's place: uniform draws that never wait, and what is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from callsheet.agents.base import NStep
from callsheet.nodes.counter import Counter
from callsheet.nodes.dataset import Dataset
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from tests.nodes.small import SPEC, Loop, agent

ROWS = 20


@pytest.fixture
def path(tmp_path):
  number = np.arange(ROWS, dtype=np.float32)
  observation = np.stack([number, -number], axis=1)
  np.savez(
    tmp_path / 'data.npz',
    observation=observation,
    action=np.arange(ROWS) % 3,
    reward=number,
    terminal=number % 5 == 0,
    next_observation=observation + 1,
  )
  return str(tmp_path / 'data.npz')


def test_rows_stay_together_and_are_drawn_evenly(path):
  dataset = Dataset(path, SPEC, NStep('t', 1, 0.9), seed=1)
  batch, keys = dataset.sample('t', 50, 40)
  data = batch.data
  number = data['reward']
  assert number.shape == keys.shape == (40, 50) and keys.dtype == np.uint64
  np.testing.assert_array_equal(keys, number)
  np.testing.assert_array_equal(data['observation'][..., 1], -number)
  np.testing.assert_array_equal(data['next_observation'][..., 0], number + 1)
  np.testing.assert_array_equal(data['action'], number % 3)
  np.testing.assert_allclose(data['discount'], np.where(number % 5 == 0, 0, 0.9))
  np.testing.assert_allclose(batch.probabilities, 1 / ROWS)
  np.testing.assert_array_equal(batch.table_size, np.full(40, ROWS))
  # Of 2000 draws each row has 100, give or take six deviations.
  counts = np.bincount(keys.astype(int).ravel(), minlength=ROWS)
  assert (np.abs(counts - 100) < 6 * math.sqrt(100 * (1 - 1 / ROWS))).all()


def test_the_same_seed_draws_the_same(path):
  def drawn(seed):
    return Dataset(path, SPEC, NStep('t', 1, 0.9), seed=seed).sample('t', 30, 2).keys

  np.testing.assert_array_equal(drawn(3), drawn(3))
  assert (drawn(3) != drawn(4)).any()


def test_its_statistics(path):
  dataset = Dataset(path, SPEC, NStep('t', 1, 0.9))
  dataset.sample('t', 30, 2)
  [(name, standing)] = dataset.statistics().items()
  assert name == 't'
  assert (standing.size, standing.max_size, standing.inserted) == (ROWS, ROWS, ROWS)
  assert (standing.sampled, standing.samples_per_insert) == (60, 3.0)
  assert (standing.credit, standing.state, standing.mass) == (math.inf, 'open', ROWS)
  assert standing.bytes == ROWS * (2 * 8 + 3 * 4)
  assert (standing.waiting_writers, standing.waiting_samplers) == (0, 0)


def test_what_it_refuses_and_what_it_passes_over(path):
  dataset = Dataset(path, SPEC, NStep('t', 1, 0.9))
  with pytest.raises(ValueError, match="no table 'u'; it has 't'"):
    dataset.sample('u', 1)
  with pytest.raises(ValueError, match='sample expected batch_size >= 1'):
    dataset.sample('t', 0)
  keys = dataset.sample('t', 4).keys
  dataset.update_priorities('t', keys, np.zeros(keys.shape))
  with pytest.raises(ValueError, match='priorities expected float'):
    dataset.update_priorities('t', keys, np.zeros(3))
  assert set(dataset.sample('t', 400).keys.ravel()) == set(range(ROWS))


@pytest.mark.timeout(60)
def test_learner_and_recorder_take_it_for_a_replay(path, tmp_path):
  dataset, counter = Dataset(path, SPEC, NStep('t', 1, 0.9)), Counter()
  recorder = Recorder(str(tmp_path), counter, dataset)
  learner = Learner(agent(), dataset, counter, recorder, max_steps=100)
  with Loop(learner) as loop:
    loop.ended.result(30)
  recorder.close()
  row = recorder.latest()
  assert row['learner_steps'] == 100
  assert row['replay_size'] == ROWS
  # Priorities, of which this agent gives some, bias nothing: the mean is that of all.
  published = learner.parameters()
  assert published is not None
  assert abs(published.params['mean'] - (ROWS - 1) / 2) < 4
