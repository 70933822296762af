"""Rates of a table: how far they look back, and what they keep to do so."""

from __future__ import annotations

import math

import hypothesis
import pytest
from hypothesis import strategies

from callsheet.nodes import table_statistics
from callsheet.nodes.limiting import Standing
from callsheet.nodes.table_statistics import Pace


class Clock:
  """In the place of the module `time`."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  found = Clock()
  monkeypatch.setattr(table_statistics, 'time', found)
  return found


def at(inserted, sampled=0):
  return Standing(0, inserted, sampled)


def test_a_rate_is_that_of_the_last_ten_seconds(clock):
  pace = Pace(at(100, 7))
  assert all(math.isnan(rate) for rate in pace.look(at(100, 7)))
  inserted, sampled = 100, 7
  for _ in range(40):  # 2 and 1 in each half second, for 20 s
    clock.now, inserted, sampled = clock.now + 0.5, inserted + 2, sampled + 1
    assert pace.look(at(inserted, sampled)) == (4.0, 2.0)
  rates = []
  for _ in range(20):  # then 10 s of nothing
    clock.now += 0.5
    rates.append(pace.look(at(inserted, sampled)))
  assert rates[0] == (3.8, 1.9) and rates[9] == (2.0, 1.0)
  assert rates[-2] == (0.2, 0.1) and rates[-1] == (0.0, 0.0)


def test_a_rate_looks_back_to_the_last_look_if_that_is_longer_ago(clock):
  pace = Pace(at(0))
  clock.now += 1
  pace.look(at(1000))
  clock.now += 50
  assert pace.look(at(1100, 25)) == (2.0, 0.5)


def test_looks_in_quick_succession_are_not_kept(clock):
  pace, inserted = Pace(at(0)), 0
  for _ in range(10_000):
    clock.now, inserted = clock.now + 0.01, inserted + 1
    rate, _ = pace.look(at(inserted))
    assert rate == pytest.approx(100.0)
  assert len(pace._looks) <= 22


@hypothesis.given(
  strategies.lists(
    strategies.tuples(
      strategies.integers(1, 64).map(lambda n: n / 4), strategies.integers(0, 100)
    ),
    min_size=1,
  )
)
def test_a_rate_is_taken_from_the_newest_look_that_is_ten_seconds_old(looks):
  with pytest.MonkeyPatch.context() as patched:
    clock = Clock()
    patched.setattr(table_statistics, 'time', clock)
    pace, inserted, seen = Pace(at(0)), 0, [(clock.now, 0)]
    for pause, more in looks:
      clock.now, inserted = clock.now + pause, inserted + more
      old = [look for look in seen if look[0] <= clock.now - 10]
      then, before = old[-1] if old else seen[0]
      rate, _ = pace.look(at(inserted))
      assert rate == pytest.approx((inserted - before) / (clock.now - then))
      if clock.now - seen[-1][0] >= 0.5:
        seen.append((clock.now, inserted))
