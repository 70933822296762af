"""The limiter's law, whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Limiter
from callsheet.nodes.limiting import Standing, bounds, credit, room, state

pytestmark = pytest.mark.timeout(60)


@st.composite
def limiters(draw):
  if draw(st.integers(0, 3)) == 0:
    return Limiter.queue(draw(st.integers(1, 5)))
  ratio = draw(st.floats(0.05, 16.0))
  slack = draw(st.sampled_from([1.0, 1.5, 10.0]))
  size = draw(st.integers(1, 20))
  return Limiter(size, ratio, draw(st.sampled_from([None, slack * max(1.0, ratio)])))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(limiters(), st.data())
def test_one_side_may_always_go_on_and_no_bound_is_passed(limiter, data):
  inserted = sampled = 0
  ratio, within = limiter.samples_per_insert, bounds(limiter)
  for _ in range(60):
    at = Standing(inserted, inserted, sampled)
    can_draw, can_write = credit(limiter, at), room(limiter, at)
    assert can_draw >= 1 or can_write >= 1
    if can_draw >= 1 and (can_write < 1 or data.draw(st.booleans())):
      sampled += data.draw(st.integers(1, min(int(can_draw), 10)))
    else:
      inserted += data.draw(st.integers(1, min(int(can_write), 10)))
    owed = ratio * inserted - sampled
    assert owed <= max(within.highest, ratio * limiter.min_size) + 1e-6
    assert sampled == 0 or owed >= within.lowest - 1e-6


@settings(deadline=None)
@given(limiters(), st.integers(0, 200), st.integers(0, 400))
def test_credit_and_room_are_used_up_one_by_one(limiter, inserted, sampled):
  at = Standing(inserted, inserted, sampled)
  drawn = credit(limiter, at)
  assert credit(limiter, Standing(inserted, inserted, sampled + int(drawn))) == 0
  written = inserted + int(room(limiter, at))
  assert room(limiter, Standing(written, written, sampled)) == 0


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 100), st.integers(0, 100))
def test_without_a_ratio_only_the_minimal_size_counts(min_size, inserted, sampled):
  limiter, at = Limiter(min_size), Standing(inserted, inserted, sampled)
  filled = inserted >= min_size
  assert credit(limiter, at) == (math.inf if filled else 0)
  assert room(limiter, at) == math.inf
  assert state(limiter, at) == ('open' if filled else 'filling')


def test_the_states_have_their_names():
  limiter = Limiter(2, 1.0, 1.0)
  assert state(limiter, Standing(1, 1, 0)) == 'filling'
  assert state(limiter, Standing(2, 2, 0)) == 'open'
  assert state(limiter, Standing(2, 2, 1)) == 'learner waits'
  assert state(limiter, Standing(3, 3, 0)) == 'actors wait'
