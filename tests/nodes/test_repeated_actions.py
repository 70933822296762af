"""An action that is kept for several steps: what a learner is told of them."""

from __future__ import annotations

import dm_env
import numpy as np
import pytest
from dm_env import specs

from callsheet.errors import UsageError
from callsheet.nodes.suites import MakeDmControl, Repeated


class Counting(dm_env.Environment):
  """Shows how many steps an episode of seven has had, each rewarded with 1 more."""

  def __init__(self, ended):
    self._ended, self._steps, self.actions = ended, 7, []

  def reset(self):
    self._steps, self.actions = 0, []
    return dm_env.restart(np.zeros(()))

  def step(self, action):
    if self._steps == 7:
      return self.reset()
    self._steps += 1
    self.actions.append(action)
    make = self._ended if self._steps == 7 else dm_env.transition
    return make(float(self._steps), np.float64(self._steps))

  def observation_spec(self):
    return specs.Array((), np.float64)

  def action_spec(self):
    return specs.Array((), np.float32)


@pytest.mark.parametrize(
  ('ended', 'discount'), [(dm_env.termination, 0.0), (dm_env.truncation, 1.0)]
)
def test_sums_rewards_and_ends_where_an_episode_ends(ended, discount):
  inner = Counting(ended)
  environment = Repeated(inner, 3)
  # A step behind an episode's end, and before the first, begins the next one.
  for begin in (environment.reset, lambda: environment.step(9.0)):
    assert begin().first()
    seen = [environment.step(action) for action in (0.1, 0.2, 0.3)]
    assert [each.reward for each in seen] == [1 + 2 + 3, 4 + 5 + 6, 7]
    assert [each.discount for each in seen] == [1, 1, discount]
    assert [each.observation for each in seen] == [3, 6, 7]
    assert [each.last() for each in seen] == [False, False, True]
    assert inner.actions == [0.1] * 3 + [0.2] * 3 + [0.3]


def test_multiplies_discounts():
  class Discounted(Counting):
    def step(self, action):
      return super().step(action)._replace(discount=0.5)

  environment = Repeated(Discounted(dm_env.termination), 3)
  environment.reset()
  assert environment.step(0.0).discount == 0.125


def test_refuses_what_is_no_number_of_steps():
  with pytest.raises(UsageError) as caught:
    MakeDmControl('dm_control/walker-walk', action_repeat=0)
  assert str(caught.value) == (
    'dm_control/walker-walk keeps an action for action_repeat steps, a positive '
    'integer, not 0'
  )
