"""SAC, TD3, DDPG and D4PG solve the two states, where a step is worth 1 at most."""

from __future__ import annotations

import pytest

from callsheet.agents import registry
from tests.agents import guard

# Of the best return, 2: the actions may be 0.15 off, where the bounds are 4 apart.
TOLERANCE = 0.3
SMALL = {
  'hidden_sizes': (32,),
  'batch_size': 64,
  'min_replay_size': 64,
  'max_replay_size': 1000,
  'n_step': 1,
  'learning_rate': 1e-2,
  'tau': 0.2,
}
AGENTS = {
  'sac': {'initial_temperature': 0.1, 'target_entropy': -3.0},
  'td3': {'exploration': 0.5, 'smoothing': 0.1},
  'ddpg': {'exploration': 0.5},
  'd4pg': {'v_min': -2.0, 'v_max': 2.0, 'num_atoms': 21, 'exploration': 0.6},
  'sac_discrete': {},
}


@pytest.mark.parametrize('name', AGENTS)
def test_it_solves_two_states(name):
  entry = registry.find(name)
  config = entry.config(**SMALL, **AGENTS[name])
  discrete = name == 'sac_discrete'
  spec = guard.DISCRETE if discrete else guard.CONTINUOUS
  learnt = guard.learn(entry.make(spec, config))
  assert learnt.falls('loss' if name in ('td3', 'ddpg') else 'critic_loss')
  if discrete:
    assert learnt.greedy_return == guard.BEST
  else:
    assert learnt.greedy_return >= guard.BEST - TOLERANCE
