"""Requests become batches in their order, none too large, none later than need be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callsheet.errors import CallCancelled
from callsheet.nodes.batching import Batching, Request, refuse

pytestmark = pytest.mark.timeout(60)

LONG = 1000.0


def request(actor=0, size=1):
  return Request(actor, np.zeros((size, 2), np.float32), np.zeros(size, bool))


def greedy(asked, max_size):
  """The batches of these (actor, size), by adding one after the other."""
  batches = [[]]
  for actor, size in asked:
    held = batches[-1]
    if sum(s for _, s in held) + size > max_size or actor in [a for a, _ in held]:
      batches.append([])
    batches[-1].append((actor, size))
    if sum(s for _, s in batches[-1]) == max_size:
      batches.append([])
  return [batch for batch in batches if batch]


@given(
  max_size=st.integers(4, 12),
  asked=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=30),
)
def test_batches_are_those_of_adding_one_after_the_other(max_size, asked):
  batching = Batching(max_size, 0.0)
  requests = [request(*each) for each in asked]
  for each in requests:
    batching.put(each)
  taken = []
  while sum(map(len, taken)) < len(asked):
    taken.append(batching.take(threading.Event()))
  assert [one for batch in taken for one in batch] == requests
  shapes = [[(one.actor, len(one.observation)) for one in batch] for batch in taken]
  assert shapes == greedy(asked, max_size)


def test_a_full_batch_waits_for_nobody():
  batching = Batching(3, LONG)
  for actor, size in ((0, 2), (1, 1)):
    batching.put(request(actor, size))
  assert len(batching.take(threading.Event())) == 2


def test_one_that_has_no_room_waits_for_the_next_batch():
  batching = Batching(3, LONG)
  for actor in (0, 1):
    batching.put(request(actor, 2))
  assert [each.actor for each in batching.take(threading.Event())] == [0]


def test_an_actor_that_asks_again_waits_for_the_next_batch():
  batching = Batching(10, LONG)
  for _ in range(2):
    batching.put(request(actor=4))
  assert len(batching.take(threading.Event())) == 1


def test_others_join_while_the_first_waits():
  batching = Batching(3, LONG)
  with ThreadPoolExecutor(1) as pool:
    taking = pool.submit(batching.take, threading.Event())
    for actor in range(3):
      assert not taking.done()
      batching.put(request(actor))
    assert [each.actor for each in taking.result(20)] == [0, 1, 2]


def test_the_first_waits_no_longer_than_it_should():
  batching = Batching(3, 0.02)
  batching.put(request())
  assert len(batching.take(threading.Event())) == 1


@pytest.mark.parametrize('waiting', [0, 1])
def test_a_stop_ends_the_wait(waiting):
  batching, stop = Batching(3, LONG), threading.Event()
  with ThreadPoolExecutor(1) as pool:
    taking = pool.submit(batching.take, stop)
    for actor in range(waiting):
      batching.put(request(actor))
    done = wait([taking], 0.1).done
    stop.set()
    assert not done
    assert len(taking.result(20)) == waiting


def test_whoever_waits_when_it_is_closed_hears_why():
  batching = Batching(3, LONG)
  answer = batching.put(request())
  batching.close('gone to lunch')
  with pytest.raises(CallCancelled, match='gone to lunch'):
    answer.result(0)
  with pytest.raises(CallCancelled, match='gone to lunch'):
    batching.put(request())
  batching.close('gone to lunch')


def test_each_of_a_batch_hears_why_it_is_refused():
  batch = [request(actor) for actor in range(2)]
  refuse(batch, 'no more')
  errors = [each.answer.exception(0) for each in batch]
  assert [str(error) for error in errors] == ['no more'] * 2
  assert errors[0] is not errors[1]
