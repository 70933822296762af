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
  'initial_multiplier_mean': 1.0,
  'initial_multiplier_stddev': 1.0,
  'policy_update_period': 5,
  'critic_update_period': 5,
}


@pytest.mark.parametrize(
  ('make', 'config'),
  [
    (mpo, MPOConfig(**QUICK)),
    (mpo, MPOConfig(tanh_mean=True, action_penalty=False, **QUICK)),
    (dmpo, DMPOConfig(v_min=-4, v_max=4, num_atoms=17, **QUICK)),
  ],
  ids=['mpo', 'tanh', 'dmpo'],
)
def test_it_solves_two_states(make, config):
  learnt = guard.learn(make(guard.CONTINUOUS, config))
  assert learnt.falls('critic_loss')
  # Of 4 that an action may be, both together miss by less than 0.2.
  assert learnt.greedy_return == pytest.approx(guard.BEST, abs=0.2)
