"""Parameters pulled by version, in the background."""

from __future__ import annotations

import math
import threading

import jax
import pytest

from callsheet.errors import ConnectionLost
from callsheet.nodes.variables import VariableClient
from tests.nodes.small import Source, eventually

pytestmark = pytest.mark.timeout(60)


class Slow(Source):
  """Answers when it is let."""

  def __init__(self):
    super().__init__(mean=1.0, version=5)
    self.let = threading.Semaphore(0)

  def parameters(self, known=-1):
    super().parameters(known)
    assert self.let.acquire(timeout=20)
    return None if known == self._published.version else self._published


def test_the_first_version_is_waited_for():
  source = Source(mean=2.5, version=7)
  client = VariableClient(source, period=1000)
  assert client.version == -1
  assert client.age() == math.inf
  params = client.params()
  assert client.version == 7
  assert params['mean'] == 2.5
  assert isinstance(params['mean'], jax.Array)
  assert 0 <= client.age() < 60
  assert source.asked == [-1]


def test_within_the_period_nobody_is_asked():
  source = Source()
  client = VariableClient(source, period=1000)
  first = client.params()
  source.publish(1.0, 1)
  assert all(client.params() is first for _ in range(100))
  assert source.asked == [-1]


def test_unchanged_parameters_stay_where_they_are():
  source = Source(version=3)
  client = VariableClient(source, period=0)
  first = client.params()
  eventually(lambda: client.params() is first and len(source.asked) > 3)
  assert client.params() is first
  assert set(source.asked) == {-1, 3}


def test_a_pull_does_not_hold_the_caller_up():
  source = Slow()
  client = VariableClient(source, period=0)
  source.let.release()
  first = client.params()
  source.publish(9.0, 6)
  # The answer isn't there yet: the old ones are given, and nobody asks twice.
  assert all(client.params() is first for _ in range(50))
  assert client.version == 5
  eventually(lambda: len(source.asked) == 2)
  source.let.release(1)
  eventually(lambda: client.params()['mean'] == 9)
  assert client.version == 6
  source.let.release(100)


def test_a_version_that_goes_back_is_taken_too():
  source = Source(mean=1.0, version=100)
  client = VariableClient(source, period=0)
  client.params()
  source.publish(2.0, 8)  # The learner was restarted.
  assert client.refresh()['mean'] == 2
  assert client.version == 8


def test_refresh_gives_what_is_newest_now():
  source = Slow()
  source.let.release()
  client = VariableClient(source, period=0)
  client.params()
  client.params()  # Asks, and will be answered that nothing is new ...
  source.let.release()
  eventually(lambda: client._asked is not None and client._asked.done())
  source.publish(4.0, 6)
  source.let.release()
  assert client.refresh()['mean'] == 4
  assert source.asked == [-1, 5, 5]


class Failing(Source):
  def __init__(self, *errors):
    super().__init__(mean=3.0)
    self.errors = list(errors)

  def parameters(self, known=-1):
    if self.errors:
      raise self.errors.pop(0)
    return super().parameters(known)


def test_a_failing_pull_surfaces_once():
  client = VariableClient(Failing(ValueError('no')), period=0)
  with pytest.raises(ValueError, match='no'):
    client.params()
  assert client.params()['mean'] == 3


def test_a_pull_lost_with_its_learner_is_repeated():
  source = Failing(ConnectionLost('learner went away'))
  assert VariableClient(source, period=0).params()['mean'] == 3
  twice = Failing(ConnectionLost('away'), ConnectionLost('still away'))
  with pytest.raises(ConnectionLost, match='still away'):
    VariableClient(twice, period=0).params()


def test_a_failing_pull_in_the_background_surfaces():
  source = Failing()
  client = VariableClient(source, period=0)
  client.params()
  source.errors.append(KeyError('broken'))

  def raises():
    try:
      client.params()
    except KeyError:
      return True
    return False

  eventually(raises)
