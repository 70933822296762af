"""The evaluator: when it ends, what it keeps, and that it plays nothing twice."""

from __future__ import annotations

import os
import threading

import dm_env
import jax.numpy as jnp
import numpy as np
import pytest

from callsheet.nodes import checkpoints
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import DmEnvVector
from callsheet.nodes.evaluator import Evaluator
from tests.nodes.small import (
  SPEC,
  Loop,
  Records,
  Source,
  Watched,
  agent,
  countdowns,
  eventually,
)

pytestmark = pytest.mark.timeout(60)


class Once(dm_env.Environment):
  """One step an episode; its reward is the action."""

  def __init__(self):
    self._playing = False

  def reset(self):
    self._playing = True
    return dm_env.restart(np.zeros(2, np.float32))

  def step(self, action):
    if not self._playing:
      return self.reset()
    self._playing = False
    return dm_env.termination(float(action), np.zeros(2, np.float32))

  def observation_spec(self):
    return SPEC.observation

  def action_spec(self):
    return SPEC.action


def once(num_environments, seed):
  return DmEnvVector([Once() for _ in range(num_environments)])


class Curriculum(Source):
  """A learner that is one version further, with the next return, at every question."""

  def __init__(self, *means):
    super().__init__(means[0])
    self._means = list(means)

  def parameters(self, known=-1):
    if self._means:
      self.publish(self._means.pop(0), self._published.version + 1)
    return super().parameters(known)


class Stage:
  """An evaluator and all that it works with; the return is the parameters' mean."""

  def __init__(self, source, make=once, evaluate=None, **options):
    self.counter, self.records = Counter(), Records()

    def watched(num_environments, seed):
      self.environment = Watched(make(num_environments, seed))
      return self.environment

    self.evaluator = Evaluator(
      agent(evaluate=evaluate),
      watched,
      source,
      self.counter,
      self.records,
      **{'num_episodes': 2, 'period': 0.001, **options},
    )

  def evaluate(self):
    """Runs it until it returns by itself; the returns that it saw."""
    with Loop(self.evaluator) as loop:
      loop.ended.result(30)
    return self.records.all('return')


# When it ends.


def test_it_ends_at_the_target():
  stage = Stage(Curriculum(0, 1, 0, 2, 1), target_return=2.0)
  assert stage.evaluate() == [0, 1, 0, 2]
  assert stage.records.all('best_return') == [0, 1, 1, 2]
  assert {(role, index) for role, _, index in stage.records.calls} == {('evaluator', 0)}


class Lucky(Once):
  """Its first episodes pay 10, all others nothing."""

  def __init__(self, pays):
    super().__init__()
    self._pays = pays

  def step(self, action):
    if not self._playing:
      return self.reset()
    self._playing = False
    return dm_env.termination(self._pays.pop(0), np.zeros(2, np.float32))


def test_a_lucky_evaluation_is_not_the_target():
  pays = [10.0, 10.0, 0.0, 0.0, 4.0, 4.0, 10.0, 10.0, 8.0, 8.0]
  stage = Stage(
    Curriculum(1, 2, 3),
    make=lambda num_environments, seed: DmEnvVector(
      [Lucky(pays) for _ in range(num_environments)]
    ),
    target_return=5.0,
  )
  # Reached but not again; not reached; reached twice: the mean of both.
  assert stage.evaluate() == [5, 4, 9]


def test_the_policy_that_reaches_the_target_is_kept(tmp_path):
  pays = [10.0, 10.0, 4.0, 4.0, 5.0, 5.0, 5.0, 5.0]
  stage = Stage(
    Curriculum(1, 2),
    make=lambda num_environments, seed: DmEnvVector(
      [Lucky(pays) for _ in range(num_environments)]
    ),
    target_return=5.0,
    policy_directory=str(tmp_path / 'policy'),
  )
  assert stage.evaluate() == [7, 5]
  assert stage.records.all('best_return') == [7, 7]
  like = {'mean': np.zeros((), np.float32)}
  kept = checkpoints.restore(str(tmp_path / 'policy'), like)
  assert float(kept['mean']) == 2


def test_it_ends_after_one_more_evaluation_when_the_budget_is_spent():
  class Spending(Curriculum):
    def parameters(self, known=-1):
      stage.counter.add(actor_steps=40)
      return super().parameters(known)

  source = Spending(0, 1, 2, 1, 0, 0, 0, 0)
  stage = Stage(source, max_actor_steps=100)
  # Counted before each: 0, 40, 80, 120.
  assert stage.evaluate() == [0, 1, 2, 1]
  assert stage.records.all('actor_steps') == [0, 40, 80, 120]


def test_a_budget_of_learner_steps_ends_it_where_nobody_acts():
  class Learning(Curriculum):
    def parameters(self, known=-1):
      stage.counter.add(learner_steps=40)
      return super().parameters(known)

  stage = Stage(Learning(0, 1, 2, 1, 0), max_learner_steps=100)
  assert stage.evaluate() == [0, 1, 2, 1]
  assert stage.records.all('learner_steps') == [0, 40, 80, 120]
  assert stage.records.all('actor_steps') == [0, 0, 0, 0]


def test_a_budget_spent_from_the_beginning_is_one_evaluation():
  stage = Stage(Curriculum(1, 2), max_actor_steps=10)
  stage.counter.add(actor_steps=10)
  assert stage.evaluate() == [1]


def test_the_last_version_is_not_evaluated_again_for_the_budget():
  source = Source(mean=1.0)
  stage = Stage(source, max_actor_steps=10)
  with Loop(stage.evaluator) as loop:
    eventually(lambda: len(source.asked) > 3)
    stage.counter.add(actor_steps=10)
    loop.ended.result(20)
  assert stage.records.all('return') == [1]
  assert stage.environment.resets == 1


def test_no_version_is_evaluated_twice():
  source = Source(mean=1.0, version=4)
  stage = Stage(source)
  with Loop(stage.evaluator) as loop:
    eventually(lambda: len(source.asked) > 5)
    source.publish(2.0, 8)
    eventually(lambda: len(stage.records.calls) == 2)
    asked = len(source.asked)
    eventually(lambda: len(source.asked) > asked + 5)
  loop.ended.result(0)
  assert stage.records.all('return') == [1, 2]
  assert stage.environment.resets == 2
  assert set(source.asked) == {-1, 4, 8}


def test_a_stop_ends_the_wait_for_the_next_evaluation():
  stage = Stage(Source(), period=1000.0)
  with Loop(stage.evaluator) as loop:
    pass
  loop.ended.result(0)
  assert stage.records.calls == []


class Endless(Once):
  def step(self, action):
    return dm_env.transition(1.0, np.zeros(2, np.float32))


def test_a_stop_in_the_middle_of_an_episode(tmp_path):
  stage = Stage(
    Source(),
    make=lambda num_environments, seed: DmEnvVector([Endless()] * num_environments),
    target_return=0.0,
    policy_directory=str(tmp_path / 'policy'),
  )
  with Loop(stage.evaluator) as loop:
    eventually(lambda: len(stage.environment.actions) > 5)
    assert not loop.ended.done()
  loop.ended.result(0)
  assert stage.records.calls == []
  assert os.listdir(tmp_path) == []


def test_a_learner_that_fails_surfaces():
  class Failing(Source):
    def parameters(self, known=-1):
      raise ConnectionError('the learner is gone')

  stage = Stage(Failing())
  with Loop(stage.evaluator) as loop, pytest.raises(ConnectionError, match='is gone'):
    loop.ended.result(20)


# What it plays and keeps.


def test_it_plays_the_policy_for_evaluation():
  def evaluate(params, carry, observation, key):
    return jnp.full(observation.shape[:1], 2), carry, ()

  stage = Stage(Source(mean=0.0), evaluate=evaluate, target_return=2.0)
  assert stage.evaluate() == [2.0]


def test_the_return_is_the_mean_over_its_episodes():
  seen = []

  def make(num_environments, seed):
    seen.append((num_environments, seed))
    return countdowns(num_environments, seed)

  stage = Stage(Source(mean=1.0), make=make, num_episodes=6, seed=9, max_actor_steps=0)
  [mean] = stage.evaluate()
  assert seen == [(6, 9)]
  total, playing = 0.0, np.ones(6, bool)
  for time_step in stage.environment.time_steps[1:]:
    total += float(time_step.reward[playing].sum())
    playing &= time_step.step_type != dm_env.StepType.LAST
  assert not playing.any()
  assert mean == pytest.approx(total / 6)


def test_the_best_policy_alone_is_kept(tmp_path, monkeypatch):
  saved = []
  save = checkpoints.save

  def watched(directory, tree):
    saved.append(float(tree['mean']))
    save(directory, tree)

  monkeypatch.setattr(checkpoints, 'save', watched)
  path = str(tmp_path / 'checkpoint' / 'policy')
  stage = Stage(
    Curriculum(1, 0, 1, 2.5, 1, 2, 0),
    policy_directory=path,
    max_actor_steps=10,
  )
  with Loop(stage.evaluator) as loop:
    eventually(lambda: len(stage.records.calls) == 7)
    stage.counter.add(actor_steps=10)
    loop.ended.result(20)
  assert saved == [1, 2.5]
  assert set(os.listdir(tmp_path / 'checkpoint')) == {'policy', 'policy.json'}
  assert checkpoints.restore(path, {'mean': np.zeros((), np.float32)})['mean'] == 2.5


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  stage = Stage(Curriculum(1, 2), target_return=2.0)
  assert stage.evaluate() == [1, 2]
  assert not list(tmp_path.iterdir())


def test_closing_closes_the_environments():
  stage = Stage(Source())
  stage.evaluator.close()
  assert stage.environment.closed


def test_nothing_is_left_running():
  before = threading.active_count()
  Stage(Curriculum(1, 2), target_return=2.0).evaluate()
  eventually(lambda: threading.active_count() <= before)
