"""The program that learns offline: its nodes, who calls whom, and when it ends."""

from __future__ import annotations

import dataclasses
import inspect
import os

import numpy as np
import pytest

from callsheet.agents.base import Sequences
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch.launching import launch
from callsheet.nodes.counter import Counter
from callsheet.nodes.dataset import Dataset
from callsheet.nodes.evaluator import Evaluator
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.programs.offline import offline
from tests.nodes.small import agent, countdowns

pytestmark = pytest.mark.timeout(120)


def make_environment(num_environments, seed):
  raise AssertionError('declaring a program makes no environment')


def arguments(node):
  """What the node's constructor is given, by name; handles as they are."""
  return inspect.signature(node.make).bind(*node.args, **node.kwargs).arguments


def write(path, width=2):
  generator = np.random.default_rng(0)
  observation = generator.normal(size=(30, width))
  np.savez(
    path,
    observation=observation,
    action=generator.integers(3, size=30),
    reward=generator.normal(size=30),
    terminal=np.arange(30) % 7 == 0,
    next_observation=observation,
  )
  return str(path)


def test_nodes_services_and_edges():
  plan = offline(agent(), make_environment, 'data.npz').plan()
  made = {node.name: (node.make, set(node.callees)) for node in plan.nodes}
  assert made == {
    'counter': (Counter, set()),
    'dataset': (Dataset, set()),
    'recorder': (Recorder, {'counter', 'dataset'}),
    'learner': (Learner, {'dataset', 'counter', 'recorder'}),
    'evaluator': (Evaluator, {'learner', 'counter', 'recorder'}),
  }
  assert [node.name for node in plan.nodes if node.ends_program] == ['evaluator']


def test_options_reach_their_nodes():
  plan = offline(
    agent(),
    make_environment,
    'data.npz',
    seed=2,
    target_return=3.0,
    max_learner_steps=70,
    num_episodes=5,
    updates_per_dispatch=7,
    evaluation_period=0.5,
    run_directory='runs/x',
  ).plan()
  dataset, learner = arguments(plan.node('dataset')), arguments(plan.node('learner'))
  evaluator = arguments(plan.node('evaluator'))
  assert (dataset['source'], dataset['spec']) == ('data.npz', agent().spec)
  assert dataset['writes'] == agent().writes
  assert (learner['max_steps'], learner['updates_per_dispatch']) == (70, 7)
  assert learner['checkpoint_directory'] == os.path.join('runs/x', 'checkpoint/learner')
  assert (evaluator['max_learner_steps'], evaluator['target_return']) == (70, 3.0)
  assert (evaluator['num_episodes'], evaluator['period']) == (5, 0.5)
  assert evaluator['policy_directory'] == os.path.join('runs/x', 'checkpoint/policy')
  assert arguments(plan.node('recorder'))['directory'] == 'runs/x'
  seeds = [each['seed'] for each in (dataset, learner, evaluator)]
  assert len(set(seeds)) == 3 and all(seed // 10_000 == 2 for seed in seeds)


def test_agents_and_learners_that_can_not_be():
  sequences = dataclasses.replace(agent(), writes=Sequences('t', 2, 1))
  with pytest.raises(UsageError, match="'mean' learns from sequences, expected one th"):
    offline(sequences, make_environment, 'data.npz')
  with pytest.raises(UsageError, match='num_learner_hosts is 3, expected a divisor of'):
    offline(agent(), make_environment, 'data.npz', num_learner_hosts=3)


@pytest.mark.parametrize('backend', ['threads', 'processes'])
def test_it_learns_evaluates_and_ends(tmp_path, backend):
  program = offline(
    agent(prioritized=False),
    countdowns,
    write(tmp_path / 'data.npz'),
    max_learner_steps=50,
    num_episodes=2,
    run_directory=str(tmp_path / 'run'),
  )
  launch(program, backend)
  assert {'learner', 'policy'} <= set(os.listdir(tmp_path / 'run' / 'checkpoint'))
  assert (tmp_path / 'run' / 'metrics.csv').exists()


def test_a_dataset_that_does_not_fit_ends_it_before_it_begins(tmp_path):
  path = write(tmp_path / 'data.npz', width=3)
  with pytest.raises(NodeFailed) as failed:
    launch(offline(agent(), countdowns, path, max_learner_steps=50), 'threads')
  assert failed.value.refused
  assert f'dataset {path!r}: column' in failed.value.reason
