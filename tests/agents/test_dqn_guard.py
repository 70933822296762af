"""DQN solves the two states, with each of its switches."""

from __future__ import annotations

import pytest

from callsheet.agents.dqn import DQNConfig, dqn
from tests.agents import guard

RAINBOW = {
  'hidden_sizes': (),
  'dueling': True,
  'noisy': True,
  'epsilon': 0.0,
  'distribution': 'categorical',
  'num_atoms': 11,
  'v_min': 0.0,
  'v_max': 4.0,
}
IMPLICIT = {'num_samples': 4, 'num_policy_samples': 4, 'embedding_size': 8}


@pytest.mark.parametrize(
  'switches',
  [
    {'prioritized': False},
    RAINBOW,
    {'distribution': 'quantile', 'num_quantiles': 4},
    {'distribution': 'implicit', **IMPLICIT},
    {'munchausen': True, 'double': False},
  ],
  ids=['uniform', 'rainbow', 'quantile', 'implicit', 'munchausen'],
)
def test_it_solves_two_states(switches):
  config = DQNConfig(
    **{
      'hidden_sizes': (16,),
      'batch_size': 16,
      'min_replay_size': 32,
      'max_replay_size': 1000,
      'n_step': 1,
      'learning_rate': 1e-2,
      'epsilon': 0.5,
      **switches,
    }
  )
  learnt = guard.learn(dqn(guard.DISCRETE, config))
  assert learnt.falls()
  assert learnt.greedy_return == guard.BEST
