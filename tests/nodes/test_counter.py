"""Counts that many nodes add to at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from callsheet.nodes.counter import Counter


def test_counts_add_up_by_name():
  counter = Counter()
  assert counter.counts() == {}
  assert counter.add(actor_steps=64, episodes=2) == {'actor_steps': 64, 'episodes': 2}
  assert counter.add(actor_steps=1) == {'actor_steps': 65, 'episodes': 2}
  assert counter.add(learner_steps=0)['learner_steps'] == 0
  assert counter.counts() == {'actor_steps': 65, 'episodes': 2, 'learner_steps': 0}


def test_what_it_gives_out_is_a_copy():
  counter = Counter()
  counter.add(a=1)['a'] = 100
  counter.counts()['a'] = 100
  assert counter.counts() == {'a': 1}


def test_nothing_is_lost_or_counted_twice_between_threads():
  counter = Counter()

  def add(_):
    return [counter.add(a=1, b=2)['a'] for _ in range(500)]

  with ThreadPoolExecutor(8) as pool:
    seen = [a for answers in pool.map(add, range(8)) for a in answers]
  assert counter.counts() == {'a': 4000, 'b': 8000}
  assert sorted(seen) == list(range(1, 4001))  # Each answer shows its own addition.


def test_integers_of_numpy_become_those_of_python():
  counter = Counter()
  counter.add(a=np.int64(3), b=np.uint8(255))
  counter.add(b=np.uint8(255))
  assert json.dumps(counter.counts()) == '{"a": 3, "b": 510}'


@pytest.mark.parametrize('amount', [1.0, '1', None, np.float32(1)])
def test_only_whole_numbers_are_added(amount):
  counter = Counter()
  with pytest.raises(TypeError, match=r'Counter\.add\(b=.*expected an int, got a '):
    counter.add(a=1, b=amount)
  assert counter.counts() == {}
