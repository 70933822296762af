"""The learner: the same as one update after the other, and no step lost or doubled."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from callsheet.errors import CallCancelled, UsageError
from callsheet.nodes import checkpoints
from callsheet.nodes.counter import Counter
from callsheet.nodes.learner import Learner
from callsheet.nodes.prefetching import Prefetch
from callsheet.nodes.variables import Parameters
from tests.nodes.small import Batches, Loop, Records, agent, eventually

pytestmark = pytest.mark.timeout(60)


def learner(replay=None, counter=None, records=None, one=None, **options):
  return Learner(
    one or agent(),
    replay or Batches(),
    counter or Counter(),
    records or Records(),
    **options,
  )


def learn(one):
  """Runs it until it returns by itself."""
  with Loop(one) as loop:
    loop.ended.result(30)
  return one


def singly(samples, seed=0, one=None):
  """The reference: every batch by itself, one update at a time."""
  one = one or agent()
  state = jax.jit(one.init)(jax.random.PRNGKey(seed))
  update, metrics = jax.jit(one.update), []  # Compiled once for one agent.
  for sample in samples:
    for k in range(len(sample.keys)):
      state, figures = update(
        state, jax.tree.map(lambda column, k=k: column[k], sample.batch)
      )
      metrics.append(figures)
  return state, metrics


def assert_close(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  for got, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def assert_stopped(loop):
  """It has seen the stop, or its wait was cancelled, whichever came first."""
  error = loop.ended.exception(0)
  assert error is None or isinstance(error, CallCancelled)


# Updates.


@pytest.mark.parametrize('per_dispatch', [1, 3, 8])
def test_many_updates_in_one_dispatch_are_so_many_single_ones(per_dispatch):
  replay = Batches()
  one = learn(learner(replay, updates_per_dispatch=per_dispatch, max_steps=24))
  state, _ = singly(replay.samples)
  assert len(replay.samples) == 24 // per_dispatch
  assert_close(one._state, state)
  assert_close(one.parameters().params, state['params'])


def test_seeds_differ_and_repeat():
  first, second, other = (learner(seed=seed).parameters() for seed in (0, 0, 1))
  assert first.params == second.params != other.params


@pytest.mark.parametrize('max_steps', [0, 1, 4, 6, 13])
def test_exactly_so_many_steps_and_no_sample_is_drawn_for_nothing(max_steps):
  replay, counter = Batches(limit=-(-max_steps // 4)), Counter()
  one = learn(learner(replay, counter, updates_per_dispatch=4, max_steps=max_steps))
  assert sum(len(sample.keys) for sample in replay.samples) == max_steps
  assert not replay.waits.is_set()
  assert int(one._state['steps']) == max_steps == one.parameters().version
  assert counter.counts().get('learner_steps', 0) == max_steps


def test_the_next_batches_are_asked_for_before_the_update():
  replay = Batches(limit=1)
  seen = []

  class Watching(Records):
    def record(self, role, figures, index=0):
      seen.append(replay.waits.wait(20))

  with Loop(learner(replay, records=Watching(), publish_period=0)) as loop:
    eventually(lambda: seen)
    replay.cancel()
    assert isinstance(loop.ended.exception(20), CallCancelled)
  assert seen == [True]


@pytest.mark.parametrize('ahead', [1, 3])
def test_no_more_samples_are_drawn_ahead_than_asked_for(ahead):
  replay = Batches()
  sharding = jax.numpy.zeros(()).sharding
  prefetch = Prefetch(
    replay,
    agent().samples,
    [2] * 10,
    ahead,
    lambda batch: jax.device_put(batch, sharding),
  )
  eventually(lambda: len(replay.samples) == ahead)
  placed = prefetch.take()
  eventually(lambda: len(replay.samples) == ahead + 1)
  assert all(
    leaf.committed and leaf.sharding == sharding
    for leaf in jax.tree.leaves(placed.batch)
  )
  while (placed := prefetch.take()) is not None:
    assert_close(placed.batch, placed.sample.batch)
  assert prefetch.at_end and len(replay.samples) == 10


def test_at_least_one_sample_ahead():
  with pytest.raises(UsageError, match='prefetch is 0, expected at least 1'):
    learner(prefetch=0)


def test_at_least_one_update_in_a_dispatch():
  with pytest.raises(
    UsageError, match='updates_per_dispatch is 0, expected at least 1'
  ):
    learner(updates_per_dispatch=0)


# Priorities.


def test_priorities_go_back_under_their_keys():
  replay = Batches()
  learn(learner(replay, updates_per_dispatch=3, max_steps=12))
  _, metrics = singly(replay.samples)
  assert [table for table, _, _ in replay.updates] == ['t'] * 4
  expected = dict(
    zip(
      np.concatenate([sample.keys for sample in replay.samples]).ravel().tolist(),
      np.concatenate([m['priorities'] for m in metrics]).tolist(),
      strict=True,
    )
  )
  sent = {}
  for _, keys, priorities in replay.updates:
    assert keys.shape == priorities.shape == (3, 4)
    sent.update(zip(keys.ravel().tolist(), priorities.ravel().tolist(), strict=True))
  assert sent == pytest.approx(expected, rel=1e-5)


def test_an_agent_without_priorities_sends_none():
  replay = Batches()
  learn(learner(replay, one=agent(prioritized=False), max_steps=16))
  assert replay.updates == []


# Parameters.


def test_parameters_are_given_once_a_version():
  one = learner()
  first = one.parameters()
  assert isinstance(first, Parameters)
  assert first.version == 0
  assert one.parameters(0) is None
  assert one.parameters(known=-1) is first
  assert one.parameters(known=8) is first  # Of a life before this one.


def test_every_version_is_what_its_steps_have_made():
  replay, one = Batches(limit=8), None
  seen = {}

  class Watching(Records):
    def record(self, role, figures, index=0):
      published = one.parameters()
      seen[published.version] = float(published.params['mean'])

  one = learner(replay, records=Watching(), updates_per_dispatch=2, publish_period=0)
  with Loop(one):
    replay.waits.wait(20)
    eventually(lambda: len(seen) == 8)
    assert one.parameters(16) is None
    assert one.parameters(14).version == 16
    replay.cancel()
  assert list(seen) == list(range(2, 18, 2))
  for version, mean in seen.items():
    state, _ = singly(replay.samples[: version // 2])
    assert mean == pytest.approx(float(state['params']['mean']), rel=1e-5)


def test_published_parameters_do_not_change_with_the_state():
  replay = Batches(limit=30)
  one = learner(replay, publish_period=0)
  donated = jax.tree.leaves(one._state)
  first = one.parameters()
  kept = jax.tree.map(np.copy, first.params)
  with Loop(one):
    assert replay.waits.wait(20)
    replay.cancel()
  assert all(leaf.is_deleted() for leaf in donated)
  # Memory of their own, and not the state's under another name.
  assert all(leaf.flags.owndata for leaf in jax.tree.leaves(first.params))
  assert first.params == kept
  assert first.params != one.parameters().params


def test_parameters_are_whole_whenever_they_are_asked_for():
  replay = Batches(limit=50)
  one = learner(replay, updates_per_dispatch=1, publish_period=0)

  def ask(_):
    versions, known = [], -1
    until = time.monotonic() + 20
    while not replay.waits.is_set() and time.monotonic() < until:
      newer = one.parameters(known)
      time.sleep(0.001)
      if newer is not None:
        known = newer.version
        versions.append((known, float(newer.params['mean'])))
    return versions

  with Loop(one), ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(ask, range(4)))
    replay.cancel()
  by_version = {}
  for versions in answers:
    assert [version for version, _ in versions] == sorted({v for v, _ in versions})
    for version, mean in versions:
      assert by_version.setdefault(version, mean) == mean


# Counting.


@pytest.mark.parametrize('publish_period', [0.0, 0.01, 1000.0])
def test_every_step_is_counted_once_when_it_ends_by_itself(publish_period):
  counter, records = Counter(), Records()
  learn(
    learner(
      counter=counter,
      records=records,
      updates_per_dispatch=3,
      publish_period=publish_period,
      max_steps=100,
    )
  )
  assert counter.counts() == {'learner_steps': 100}
  roles = {(role, tuple(figures), index) for role, figures, index in records.calls}
  assert roles == {('learner', ('loss',), 0)}


@pytest.mark.parametrize('publish_period', [0.0, 1000.0])
def test_every_step_is_counted_once_when_a_stop_ends_it(publish_period):
  replay, counter = Batches(limit=5), Counter()
  one = learner(replay, counter, updates_per_dispatch=4, publish_period=publish_period)
  with Loop(one) as loop:
    assert replay.waits.wait(20)
    eventually(lambda: len(replay.updates) == 5)
    loop.stop.set()
    replay.cancel()  # As the runtime does, right behind the stop.
  assert_stopped(loop)
  assert counter.counts() == {'learner_steps': 20}


def test_a_stop_before_the_first_sample():
  replay, counter = Batches(limit=0), Counter()
  with Loop(learner(replay, counter)) as loop:
    assert replay.waits.wait(20)
    loop.stop.set()
    replay.cancel()
  assert_stopped(loop)
  assert counter.counts() == {}


def test_a_stop_while_samples_keep_coming():
  counter, replay = Counter(), Batches()
  one = learner(replay, counter, updates_per_dispatch=2)
  with Loop(one) as loop:
    eventually(lambda: len(replay.updates) > 3)
  assert_stopped(loop)
  assert counter.counts() == {'learner_steps': int(one._state['steps'])}


def test_the_metrics_are_the_mean_of_a_dispatch():
  replay, records = Batches(), Records()
  learn(
    learner(
      replay, records=records, updates_per_dispatch=4, publish_period=0, max_steps=12
    )
  )
  _, metrics = singly(replay.samples)
  losses = np.array([m['loss'] for m in metrics]).reshape(3, 4).mean(axis=1)
  np.testing.assert_allclose(records.all('loss'), losses, rtol=1e-5)


# Failures.


class FailingSample(Batches):
  def sample(self, table, batch_size, num_batches=1):
    if len(self.samples) == 2:
      raise ConnectionError('the replay is gone')
    return super().sample(table, batch_size, num_batches)


class FailingUpdates(Batches):
  def update_priorities(self, table, keys, priorities):
    super().update_priorities(table, keys, priorities)
    if len(self.updates) == 2:
      raise ConnectionError('the replay is gone')


@pytest.mark.parametrize('replay', [FailingSample(), FailingUpdates()])
def test_a_failing_replay_surfaces_and_what_was_done_is_counted(replay):
  counter = Counter()
  one = learner(replay, counter, updates_per_dispatch=2)
  with Loop(one) as loop, pytest.raises(ConnectionError, match='the replay is gone'):
    loop.ended.result(30)
  assert counter.counts() == {'learner_steps': int(one._state['steps'])}


def test_a_failing_update_of_the_last_priorities_surfaces():
  one = learner(FailingUpdates(), updates_per_dispatch=2, max_steps=4)
  with Loop(one) as loop, pytest.raises(ConnectionError, match='the replay is gone'):
    loop.ended.result(30)


def test_a_report_that_fails_is_not_sent_twice():
  class Lost(Counter):
    def report(self, source, totals):
      super().report(source, totals)
      raise ConnectionError('the answer is lost')

  counter = Lost()
  one = learner(
    counter=counter, updates_per_dispatch=2, max_steps=6, publish_period=1000
  )
  with Loop(one) as loop, pytest.raises(ConnectionError, match='the answer is lost'):
    loop.ended.result(30)
  assert counter.counts() == {'learner_steps': 6}


# Its checkpoint.


def test_the_state_is_saved_in_the_end_bit_for_bit(tmp_path):
  folder = str(tmp_path / 'checkpoint' / 'learner')
  one = learn(learner(checkpoint_directory=folder, max_steps=20))
  one.close()
  like = jax.tree.map(np.zeros_like, agent().init(jax.random.PRNGKey(0)))
  restored = checkpoints.restore(folder, like)
  assert int(restored['steps']) == 20
  for got, wanted in zip(
    jax.tree.leaves(restored), jax.tree.leaves(one._state), strict=True
  ):
    assert got.dtype == wanted.dtype
    assert np.asarray(got).tobytes() == np.asarray(wanted).tobytes()


def test_it_is_saved_after_a_stop_too(tmp_path):
  replay = Batches(limit=3)
  one = learner(
    replay, checkpoint_directory=str(tmp_path / 'x'), updates_per_dispatch=2
  )
  with Loop(one) as loop:
    assert replay.waits.wait(20)
    eventually(lambda: len(replay.updates) == 3)
    loop.stop.set()
    replay.cancel()
  one.close()
  assert int(checkpoints.restore(str(tmp_path / 'x'), one._state)['steps']) == 6


def test_without_a_folder_nothing_is_saved(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  learner().close()
  assert not list(tmp_path.iterdir())
