"""Whatever shares its batch, each actor gets what it would get alone."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.errors import UsageError
from callsheet.nodes.batched_policy import Asked, BatchedPolicy, sizes
from tests.nodes.recurrent import Alone, begun, observed, recurrent_agent

pytestmark = pytest.mark.timeout(120)

PARAMS = {'mean': np.float32(0)}


def length(actor):
  """An actor's number of environments."""
  return 1 + actor % 3


@st.composite
def rounds(draw):
  """What is asked in each of a few batches: `{actor: (values, first)}`."""
  batches = []
  for _ in range(draw(st.integers(1, 6))):
    actors = draw(st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True))
    batches.append(
      {
        actor: (
          draw(st.lists(st.integers(1, 500), min_size=n, max_size=n)),
          draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        )
        for actor in actors
        for n in [length(actor)]
      }
    )
  return batches


@settings(max_examples=15, deadline=None)
@given(rounds())
def test_each_actor_gets_what_it_would_get_alone(batches):
  policy = BatchedPolicy(recurrent_agent(), 0, max_size=18)
  alone = [Alone() for _ in range(9)]
  for batch in batches:
    asked = [
      Asked(actor, observed(values), np.array(first))
      for actor, (values, first) in batch.items()
    ]
    for one, (action, extras) in zip(asked, policy.act(PARAMS, asked), strict=True):
      alone[one.actor].check(action, extras, *batch[one.actor])


def test_carries_stay_where_more_actors_come_than_there_was_room_for():
  policy = BatchedPolicy(recurrent_agent(), 0, max_size=4)
  alone = [Alone() for _ in range(20)]
  for step in range(3):
    for actor, expected in enumerate(alone):
      values = [1 + step * 100 + actor] * 3
      [given] = policy.act(
        PARAMS, [Asked(actor, observed(values), np.array(begun(values)))]
      )
      expected.check(*given, values)


def test_an_actor_that_comes_with_other_environments_begins_anew():
  policy = BatchedPolicy(recurrent_agent(), 0, max_size=8)
  for values in ([3, 4], [5, 6, 7], [8], [9, 10]):
    [given] = policy.act(PARAMS, [Asked(0, observed(values), np.array(begun(values)))])
    Alone().check(*given, values)


@pytest.mark.parametrize(
  ('max_size', 'expected'),
  [
    (1, (1,)),
    (8, (8,)),
    (9, (8, 9)),
    (32, (8, 16, 32)),
    (100, (8, 16, 32, 64, 100)),
  ],
)
def test_sizes_are_powers_of_two_and_the_largest(max_size, expected):
  assert sizes(max_size) == expected


def test_every_size_is_compiled_once_and_before_it_is_asked_for():
  traced = []
  made = recurrent_agent()

  def policy(params, carry, observation, key):
    traced.append(len(observation))
    return made.policy(params, carry, observation, key)

  batched = BatchedPolicy(recurrent_agent(policy=policy), 0, max_size=20)
  batched.compile(threading.Event())
  assert traced == [8, 16, 20]
  # On the device, as those are that a learner has sent.
  params = jax.device_put(PARAMS)
  for size in range(1, 21):
    for first in ([True], [False]):
      asked = [Asked(actor, observed([1]), np.array(first)) for actor in range(size)]
      assert len(batched.act(params, asked)) == size
  assert traced == [8, 16, 20]


def test_a_stop_ends_the_compiling():
  traced = []
  stop = threading.Event()
  made = recurrent_agent()

  def policy(params, carry, observation, key):
    traced.append(len(observation))
    stop.set()
    return made.policy(params, carry, observation, key)

  BatchedPolicy(recurrent_agent(policy=policy), 0, max_size=20).compile(stop)
  assert traced == [8]


def test_what_is_random_is_so_in_every_batch_and_comes_from_the_seed():
  def policy(params, carry, observation, key):
    return jax.random.randint(key, observation.shape[:1], 0, 10**6), carry, ()

  def played(seed):
    batched = BatchedPolicy(recurrent_agent(policy=policy), seed, max_size=8)
    asked = [Asked(0, observed([1, 2, 3]), np.zeros(3, bool))]
    return [batched.act(PARAMS, asked)[0][0].tolist() for _ in range(3)]

  once = played(1)
  assert once == played(1) and once != played(2)
  assert len({action for step in once for action in step}) == 9


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'initial_carry': lambda count: {'clock': jnp.zeros(())}},
      r"'mean': its initial_carry for 2 environments has an array of shape \(\), exp",
    ),
    (
      {'policy': lambda params, carry, observation, key: (jnp.zeros(3), carry, ())},
      r'its action for 8 environments has an array of shape \(3,\), expected \[8, ',
    ),
    (
      {
        'policy': lambda params, carry, observation, key: (
          observation[:, 0],
          carry,
          {'mean': jnp.mean(observation)},
        )
      },
      r'its extras for 8 .* shape \(\), expected \[8, ...\].* needs a row of its own',
    ),
  ],
)
def test_what_can_not_be_told_apart_by_environment_is_refused(changes, message):
  with pytest.raises(UsageError, match=message):
    BatchedPolicy(recurrent_agent(**changes), 0, 8).compile(threading.Event())
