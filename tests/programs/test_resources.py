"""What a node needs, and when it may start again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callsheet.errors import GraphError
from callsheet.programs import Always, Never, OnFailure, Resources


def test_never_allows_nothing() -> None:
  assert not Never().allows(True, 0) and not Never().allows(False, 0)


def test_on_failure_restarts_failures_so_many_times() -> None:
  policy = OnFailure(max_restarts=2)
  assert [policy.allows(True, restarts) for restarts in range(4)] == [
    True,
    True,
    False,
    False,
  ]
  assert not policy.allows(False, 0)


def test_always_restarts_either_way() -> None:
  assert Always().allows(True, 10**6) and Always().allows(False, 10**6)
  assert Always(max_restarts=1).allows(False, 0)
  assert not Always(max_restarts=1).allows(True, 1)


def test_delays_double_up_to_thirty_seconds() -> None:
  delays = [OnFailure(backoff=1.0).delay(restarts) for restarts in range(7)]
  assert delays == [1, 2, 4, 8, 16, 30, 30]
  assert Never().delay(3) == 0


@given(st.floats(0, 1e6), st.integers(0, 10**9))
def test_delays_never_shrink_and_stay_bounded(backoff: float, restarts: int) -> None:
  policy = Always(backoff=backoff)
  assert 0 <= policy.delay(restarts) <= policy.delay(restarts + 1) <= 30


@pytest.mark.parametrize(
  ('wrong', 'says'),
  [
    ({'cpus': -1}, 'cpus must be at least 0'),
    ({'cpus': float('nan')}, 'cpus must be at least 0'),
    ({'gpus': -1}, 'gpus must be at least 0'),
    ({'hosts': 0}, 'hosts must be at least 1'),
    ({'memory_gb': 0}, 'memory_gb must be above 0'),
    ({'tpu_topology': '2x2'}, r"Resources\(tpu='v5e', tpu_topology='2x2'\)"),
    ({'tpu': 'v5e', 'tpu_topology': 'two'}, "tpu_topology='2x2'"),
  ],
)
def test_amounts_that_cannot_be(wrong: dict[str, Any], says: str) -> None:
  with pytest.raises(GraphError, match=says):
    Resources(**wrong)


@pytest.mark.parametrize(
  'make',
  [
    lambda: OnFailure(max_restarts=-1),
    lambda: Always(max_restarts=-1),
    lambda: OnFailure(backoff=-1.0),
    lambda: Always(backoff=float('inf')),
  ],
)
def test_policies_that_cannot_be(make: Any) -> None:
  with pytest.raises(GraphError, match='must be at least 0'):
    make()


def test_resources_keep_their_own_environment_and_hash() -> None:
  environment = {'A': '1'}
  resources = Resources(environment=environment)
  environment['A'] = '2'
  assert resources.environment == {'A': '1'}
  assert len({resources, Resources(environment={'A': '1'})}) == 1
