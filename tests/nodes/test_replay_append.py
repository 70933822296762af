"""What every engine makes of time steps: the items of one step at a time."""

from __future__ import annotations

import pytest

from callsheet.agents.base import NStep, Sequences
from tests.nodes.played import OneByOne, as_bytes, cut, play, stored, table

pytestmark = pytest.mark.timeout(60)

WRITES = [
  NStep('t', 1, 0.9),
  NStep('t', 3, 0.9, num_stacked=4),
  NStep('t', 5, 0.9, num_stacked=2, stack_axis=0),
  NStep('t', 2, 0.9, num_stacked=3, stack_axis=1),
  Sequences('t', 4, 4),
  Sequences('t', 5, 2, num_stacked=4),
  Sequences('t', 6, 1, num_stacked=2, stack_axis=0),
  Sequences('t', 3, 3, cross_episodes=True),
  Sequences('t', 7, 3, cross_episodes=True, num_stacked=3),
]


@pytest.mark.parametrize('writes', WRITES, ids=str)
@pytest.mark.parametrize('channels', [1, 3])
def test_items_are_those_of_one_step_at_a_time(engine, writes, channels):
  declared = table(writes, channels=channels)
  replay = engine([declared])
  steps = play(1, 41, 2, 0.2, channels)
  made = 0
  for index, block in enumerate(cut(steps, 1, 2, 9, 9, 17, 30)):
    made += replay.append('t', 'a', block, fresh=index == 0)
  expected = OneByOne(declared, steps).items()
  assert made == len(expected) == replay.statistics()['t'].size > 5
  assert stored(replay, 't') == sorted(map(as_bytes, expected))
