"""IMPALA solves the two states."""

from __future__ import annotations

import pytest

from callsheet.agents.impala import IMPALAConfig, impala
from tests.agents import guard


@pytest.mark.parametrize('lstm_size', [None, 8])
def test_it_solves_two_states(lstm_size):
  config = IMPALAConfig(
    unroll_length=4,
    batch_size=8,
    queue_size=16,
    hidden_sizes=(16,),
    lstm_size=lstm_size,
    learning_rate=1e-2,
  )
  learnt = guard.learn(impala(guard.DISCRETE, config))
  assert learnt.falls()
  assert learnt.greedy_return == guard.BEST
