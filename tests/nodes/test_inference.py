"""The inference server: each actor's answers are its own, however they are batched."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.calls import call_async
from callsheet.errors import CallCancelled, ConnectionLost, UsageError
from callsheet.launch import courier
from callsheet.nodes.acting import RemotePolicy
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.inference import InferenceServer, InferenceStatistics
from tests.nodes.recurrent import Alone, observed, recurrent_agent
from tests.nodes.small import (
  Loop,
  Records,
  Source,
  Watched,
  agent,
  countdowns,
  eventually,
)
from tests.nodes.test_actor import Inserts

pytestmark = pytest.mark.timeout(120)

LONG = 1000.0
GOING = np.array([False, False])


def server(made=None, source=None, records=None, **options):
  return InferenceServer(
    made or recurrent_agent(), source or Source(), records or Records(), **options
  )


@contextlib.contextmanager
def running(*args, **options):
  """A server that answers."""
  made = server(*args, **options)
  with Loop(made) as loop:
    yield made
    loop.stop.set()
    loop.ended.result(20)


# Answers.


@settings(max_examples=10, deadline=None)
@given(
  lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
  max_batch_size=st.integers(4, 20),
  max_wait=st.sampled_from([0.0, 0.001, 0.01]),
  seed=st.integers(0, 2**32),
)
def test_each_actor_gets_its_own_answers(lengths, max_batch_size, max_wait, seed):
  def play(actor, length, made):
    rng = random.Random(seed + actor)
    alone = Alone()
    for _ in range(12):
      values = [rng.randint(1, 500) for _ in range(length)]
      first = [rng.random() < 0.2 for _ in range(length)]
      time.sleep(rng.choice([0, 0, 0.002]))
      acted = made.act(actor, observed(values), np.array(first))
      alone.check(acted.action, acted.extras, values, first, mean=3)

  options = {'max_batch_size': max_batch_size, 'max_wait': max_wait}
  with (
    running(source=Source(mean=3), **options) as made,
    ThreadPoolExecutor(len(lengths)) as pool,
  ):
    played = [pool.submit(play, *each, made) for each in enumerate(lengths)]
    for each in played:
      each.result(60)
    statistics = made.statistics()
  assert statistics.requests == 12 * len(lengths)
  assert statistics.environments == 12 * sum(lengths)
  assert 12 <= statistics.batches <= statistics.requests
  assert statistics.mean_size <= max_batch_size
  assert statistics.mean_wait >= 0


def test_those_who_wait_are_answered_together():
  records = Records()
  # The last to come completes the batch: nobody waits so long.
  options = {'max_batch_size': 6, 'max_wait': LONG, 'report_period': 0.0}
  with running(records=records, **options) as made:
    for _ in range(2):
      asked = [
        call_async(made.act, actor, observed([5, 6]), GOING) for actor in range(3)
      ]
      for each in asked:
        assert len(each.result(60).action) == 2
    eventually(lambda: len(records.calls) == 2)
    statistics = made.statistics()
  assert statistics[:3] == (2, 6, 12)
  assert statistics.mean_size == 6
  assert statistics.mean_wait == statistics.seconds_waited / 6 > 0
  assert {(role, index) for role, _, index in records.calls} == {('inference', 0)}
  assert records.all('batch_size') == [6, 6]
  assert sum(records.all('wait')) * 3 == pytest.approx(statistics.seconds_waited)
  assert all(0 <= age < 60 for age in records.all('parameter_age'))


@pytest.mark.parametrize('answered', [0, 2])
def test_what_was_done_since_the_last_report_is_reported_in_the_end(answered):
  records = Records()
  with running(records=records, max_batch_size=1, report_period=LONG) as made:
    for _ in range(answered):
      made.act(0, observed([1]), GOING[:1])
  assert records.all('batch_size') == [1] * min(answered, 1)


def test_a_server_that_has_done_nothing_has_no_means():
  assert server().statistics() == InferenceStatistics()
  assert (InferenceStatistics().mean_size, InferenceStatistics().mean_wait) == (0, 0)


def test_a_server_that_is_new_begins_with_the_initial_carry():
  with running(max_batch_size=2) as first:
    for values in ([3, 4], [5, 6]):
      first.act(0, observed(values), GOING)
  alone = Alone()
  with running(max_batch_size=2) as second:
    for values in ([7, 8], [9, 1]):
      acted = second.act(0, observed(values), GOING)
      alone.check(acted.action, acted.extras, values)


def test_parameters_are_refreshed_by_version():
  source = Source(mean=0, version=10)
  with running(agent(), source, max_batch_size=1, update_period=0.0) as made:

    def latest():
      return int(made.act(0, observed([1]), GOING[:1]).action[0])

    assert latest() == 0
    source.publish(1.0, 20)
    eventually(lambda: latest() == 1)
    source.publish(2.0, 30)
    eventually(lambda: latest() == 2)
    assert 0 <= made.act(0, observed([1]), GOING[:1]).parameter_age < 60
  assert set(source.asked) == {-1, 10, 20, 30}


@pytest.mark.parametrize('through_server', [False, True])
def test_an_actor_writes_the_same(through_server):
  replay, counter = Inserts(limit=4), Counter()
  with contextlib.ExitStack() as stack:
    source = Source(mean=2.2)
    made = agent()
    how = (
      (None, {'inference': stack.enter_context(running(made, source))})
      if through_server
      else (source, {})
    )
    environments = Watched(countdowns(3, 2))
    actor = Actor(
      made,
      lambda num_environments, seed: environments,
      replay,
      how[0],
      counter,
      Records(),
      num_environments=3,
      block_length=8,
      **how[1],
    )
    with Loop(actor) as loop:
      assert replay.waits.wait(20)
      loop.stop.set()
      replay.cancel()
  written = np.concatenate([block['reward'] for block in replay.blocks])
  assert {int(a) for action in environments.actions for a in action} == {2}
  assert len(written) > 50 and counter.counts()['actor_steps'] > 90


# What is refused.


@pytest.mark.parametrize(
  ('observation', 'message'),
  [
    (observed([1] * 9), '9 environments at once are more than a batch .* above 8$'),
    (np.zeros((2, 3), np.float32), r'is float32 \[2, 3\], expected float32 \[B, 2\] '),
    (np.zeros(2, np.float32), r'the observation is float32 \[2\], expected'),
    (np.zeros((0, 2), np.float32), r'float32 \[0, 2\], .* with B at least 1'),
    (np.zeros((2, 2), np.complex64), r'is complex64 \[2, 2\], expected float32'),
    (None, r'is object \[\], expected float32'),
  ],
)
def test_what_can_not_be_answered_is_refused_and_others_are_not(observation, message):
  with running(max_batch_size=8, max_wait=0.01) as made:
    fine = call_async(made.act, 0, observed([1, 2]), GOING)
    with pytest.raises(UsageError, match=message):
      made.act(1, observation, GOING)
    acted = fine.result(60)
    Alone().check(acted.action, acted.extras, [1, 2])


@pytest.mark.parametrize('first', [np.zeros(3, bool), np.zeros(2, np.int32), True])
def test_where_episodes_begin_has_to_be_said_of_each_environment(first):
  with (
    running() as made,
    pytest.raises(UsageError, match=r'expected bool \[2\], wheth'),
  ):
    made.act(0, observed([1, 2]), first)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'max_batch_size': 0}, 'max_batch_size is 0, expected at least 1'),
    ({'max_wait': -1.0}, 'max_wait is -1.0, expected seconds of at least 0'),
    ({'max_wait': float('nan')}, 'max_wait is nan, expected seconds of at least 0'),
  ],
)
def test_options_that_can_not_be(options, message):
  with pytest.raises(UsageError, match=message):
    server(**options)


# Ending.


def test_a_stop_ends_the_server_and_those_who_come_later():
  with running() as made:
    made.act(0, observed([1]), GOING[:1])
  with pytest.raises(CallCancelled, match='inference server is stopping'):
    made.act(0, observed([1]), GOING[:1])


def test_closing_ends_those_who_wait():
  made = server()
  waiting = call_async(made.act, 0, observed([1]), GOING[:1])
  eventually(lambda: made._batching._waiting)
  made.close()
  with pytest.raises(CallCancelled, match='inference server is stopping'):
    waiting.result(20)


@pytest.mark.parametrize('failing', ['learner', 'recorder'])
def test_what_fails_surfaces_and_those_who_wait_hear_of_it(failing):
  class Gone(Source, Records):
    def parameters(self, known=-1):
      raise ConnectionError('the learner is gone')

    def record(self, role, figures, index=0):
      raise ConnectionError('the recorder is gone')

  gone = {'source' if failing == 'learner' else 'records': Gone()}
  made = server(max_batch_size=1, report_period=0.0, **gone)
  asked = [call_async(made.act, actor, observed([1]), GOING[:1]) for actor in range(3)]
  eventually(lambda: len(made._batching._waiting) == 3)
  with (
    Loop(made) as loop,
    pytest.raises(ConnectionError, match=f'the {failing} is gone'),
  ):
    loop.ended.result(60)
  errors = [each.exception(20) for each in asked]
  heard = [str(error) for error in errors if isinstance(error, CallCancelled)]
  why = f'the inference server has failed: ConnectionError: the {failing} is gone'
  assert heard == [why] * (3 if failing == 'learner' else 2)
  with pytest.raises(CallCancelled, match=why):
    made.act(0, observed([1]), GOING[:1])


# Behind the courier.


@pytest.fixture
def place(tmp_path):
  """Starts courier servers at one address and connects clients; ends them all."""
  secret, opened = secrets.token_bytes(32), []

  def listen():
    opened.append(courier.Server(f'unix:{tmp_path}/inference', secret, 'inference'))
    return opened[-1]

  def connect():
    client = courier.connect(f'unix:{tmp_path}/inference', secret, peer='inference')
    opened.append(client)
    return client

  yield listen, connect
  for end in reversed(opened):
    end.close() if isinstance(end, courier.Server) else courier.close(end)


def test_an_actor_outlives_its_server(place):
  listen, connect = place
  at, alone = listen(), Alone()
  policy = RemotePolicy(connect(), 3)
  with running(max_batch_size=2) as first:
    at.serve(first)
    for values in ([3, 4], [5, 6]):
      alone.check(*policy.act(observed(values), GOING), values)
  # Nobody answers any more: this call is lost, and made again of the next server.
  unanswered = server()
  at.close()
  at = listen()
  at.serve(unanswered)
  asked = call_async(policy.act, observed([7, 8]), GOING)
  eventually(lambda: unanswered._batching._waiting)
  at.close()
  with running(max_batch_size=2) as second:
    listen().serve(second)
    Alone().check(*asked.result(60), [7, 8])


def test_a_stop_of_the_actor_ends_its_wait(place):
  listen, connect = place
  unanswered = server()
  listen().serve(unanswered)
  client = connect()
  asked = call_async(RemotePolicy(client, 3).act, observed([7, 8]), GOING)
  eventually(lambda: unanswered._batching._waiting)
  courier.cancel_blocking(client)
  with pytest.raises(CallCancelled):
    asked.result(20)
  unanswered.close()


def test_a_server_that_dies_for_good_is_lost(place):
  listen, connect = place
  at, unanswered = listen(), server()
  at.serve(unanswered)
  client = connect()
  asked = call_async(client.act, 3, observed([7, 8]), GOING)
  eventually(lambda: unanswered._batching._waiting)
  at.close()
  with pytest.raises(ConnectionLost, match='inference'):
    asked.result(20)
  unanswered.close()
