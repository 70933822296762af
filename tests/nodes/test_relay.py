"""Relays: many callers, one pull a period."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from callsheet.errors import ConnectionLost, UsageError
from callsheet.nodes.relay import Relay
from tests.nodes.small import Source

pytestmark = pytest.mark.timeout(60)


def test_hands_on_what_its_source_has():
  source = Source(mean=2.5, version=7)
  relay = Relay(source, update_period=0)
  given = relay.parameters()
  assert given.version == 7 and given.params['mean'] == 2.5
  assert relay.parameters(7) is None
  source.publish(3.5, 9)
  assert relay.parameters(7).version == 9


def test_asks_once_a_period_however_many_ask_it():
  source = Source(version=7)
  relay = Relay(source, update_period=1000)
  with ThreadPoolExecutor(16) as pool:
    given = list(pool.map(lambda _: relay.parameters(), range(200)))
  assert {each.version for each in given} == {7}
  assert source.asked == [-1]


def test_relays_make_a_tree():
  source = Source(version=7)
  roots = [Relay(source, update_period=1000) for _ in range(2)]
  leaves = [Relay(roots[i % 2], update_period=1000) for i in range(6)]
  assert {leaf.parameters().version for leaf in leaves} == {7}
  assert source.asked == [-1, -1]


def test_a_pull_holds_up_nobody_else():
  class Slow(Source):
    entered, go_on = threading.Event(), threading.Event()

    def parameters(self, known=-1):
      if known >= 0:
        self.entered.set()
        assert self.go_on.wait(20)
      return super().parameters(known)

  source = Slow(version=7)
  relay = Relay(source, update_period=0)
  relay.parameters()
  source.publish(1.0, 8)
  first = ThreadPoolExecutor(1)
  pulled = first.submit(relay.parameters, 7)
  assert source.entered.wait(20)
  assert relay.parameters(7) is None
  source.go_on.set()
  assert pulled.result(20).version == 8
  first.shutdown()


def test_a_source_that_was_restarted_is_asked_again():
  class Restarted(Source):
    lost = False

    def parameters(self, known=-1):
      if not self.lost:
        self.lost = True
        raise ConnectionLost('gone', 'learner')
      return super().parameters(known)

  assert Relay(Restarted(version=3)).parameters().version == 3


def test_a_period_that_can_not_be():
  with pytest.raises(UsageError, match='update_period is -1'):
    Relay(Source(), update_period=-1)
