"""PPO solves the two states, of discrete and of continuous actions."""

from __future__ import annotations

import dataclasses

import pytest

from callsheet.agents.ppo import PPOConfig, ppo
from tests.agents import guard


def learn(spec, **changes):
  config = PPOConfig(
    rollout_length=4,
    batch_size=8,
    queue_size=16,
    num_epochs=2,
    num_minibatches=2,
    hidden_sizes=(16,),
    learning_rate=1e-2,
  )
  return guard.learn(ppo(spec, dataclasses.replace(config, **changes)))


@pytest.mark.parametrize('lstm_size', [None, 8])
def test_it_solves_two_states(lstm_size):
  learnt = learn(guard.DISCRETE, lstm_size=lstm_size)
  assert learnt.falls('value_loss')
  assert learnt.greedy_return == guard.BEST


def test_it_nearly_solves_two_states_of_continuous_actions():
  learnt = learn(
    guard.CONTINUOUS, batch_size=16, queue_size=32, num_epochs=4, learning_rate=5e-3
  )
  assert learnt.falls('value_loss')
  assert learnt.greedy_return > guard.BEST - 0.1
