"""DQN solves the two states."""

from __future__ import annotations

import pytest

from callsheet.agents.dqn import DQNConfig, dqn
from tests.agents import guard


@pytest.mark.parametrize('prioritized', [True, False])
def test_it_solves_two_states(prioritized):
  config = DQNConfig(
    prioritized=prioritized,
    hidden_sizes=(16, 16),
    batch_size=16,
    min_replay_size=32,
    max_replay_size=1000,
    n_step=1,
    learning_rate=5e-3,
    epsilon=0.5,
  )
  learnt = guard.learn(dqn(guard.DISCRETE, config))
  assert learnt.falls()
  assert learnt.greedy_return == guard.BEST
