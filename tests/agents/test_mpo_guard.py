"""MPO and DMPO solve the two states."""

from __future__ import annotations

import pytest

from callsheet.agents.mpo import DMPOConfig, MPOConfig, dmpo, mpo
from tests.agents import guard

QUICK = {
  'policy_sizes': (16,),
  'critic_sizes': (32,),
  'batch_size': 32,
  'min_replay_size': 32,
  'max_replay_size': 2000,
  'n_step': 1,
  'policy_learning_rate': 1e-2,
  'critic_learning_rate': 1e-2,
  'epsilon': 0.5,
  'epsilon_mean': 0.05,
  'epsilon_stddev': 1e-3,
  'initial_temperature': 0.5,
  'initial_multiplier_mean': 0.3,
  'initial_multiplier_stddev': 1.0,
  'policy_update_period': 5,
  'critic_update_period': 5,
}


DISTRIBUTION = {
  'v_min': -1,
  'v_max': 3,
  'num_atoms': 9,
  'critic_learning_rate': 2e-2,
}


@pytest.mark.parametrize(
  ('make', 'config'),
  [
    (mpo, MPOConfig(**QUICK)),
    (dmpo, DMPOConfig(**{**QUICK, **DISTRIBUTION})),
  ],
  ids=['mpo', 'dmpo'],
)
def test_it_solves_two_states(make, config):
  learnt = guard.learn(make(guard.CONTINUOUS, config), updates=300)
  assert learnt.falls('critic_loss')
  # Of 4 that an action may be, both together miss by less than 0.3; always in the
  # middle they would miss by 1.5.
  assert learnt.greedy_return == pytest.approx(guard.BEST, abs=0.3)
