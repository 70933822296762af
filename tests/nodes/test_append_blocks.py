"""However streams are cut into blocks, the items are those of one step at a time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import NStep, Sequences
from callsheet.nodes.native_replay import NativeReplay
from tests.nodes.played import OneByOne, as_bytes, cut, drained, play, table

pytestmark = pytest.mark.timeout(120)


@st.composite
def writings(draw):
  stacked, axis = draw(st.integers(1, 4)), draw(st.sampled_from([-1, 0, 1]))
  if draw(st.booleans()):
    return NStep('t', draw(st.integers(1, 5)), 0.9, stacked, axis)
  length = draw(st.integers(1, 6))
  period = draw(st.integers(1, length))
  return Sequences('t', length, period, draw(st.booleans()), stacked, axis)


@st.composite
def streams(draw):
  """A stream of 1 to 3 environments, and its blocks, some of them empty."""
  length = draw(st.integers(1, 25))
  rate = draw(st.sampled_from([0.0, 0.1, 0.3, 0.9]))
  steps = play(draw(st.integers(0, 999)), length, draw(st.integers(1, 3)), rate)
  # An actor's first block may begin amidst an episode.
  late = draw(st.integers(0, 3))
  steps = {name: column[late:] for name, column in steps.items()}
  cuts = draw(st.lists(st.integers(0, max(0, length - late)), max_size=6))
  return steps, cut(steps, *cuts)


@settings(max_examples=100, deadline=None)
@given(writings(), streams(), streams(), st.randoms(use_true_random=False))
def test_two_sources_whatever_their_blocks(writes, one, other, random):
  declared = table(writes, sampler='fifo', max_times_sampled=1)
  calls = [0] * len(one[1]) + [1] * len(other[1])
  random.shuffle(calls)
  blocks = [iter(one[1]), iter(other[1])]
  expected = [iter(OneByOne(declared, steps).items()) for steps, _ in (one, other)]
  begun, order = set(), []
  replay = NativeReplay([declared])
  try:
    for source in calls:
      block = next(blocks[source])
      made = replay.append('t', source, block, fresh=source not in begun)
      begun.add(source)
      order += map(as_bytes, itertools.islice(expected[source], made))
    assert [list(rest) for rest in expected] == [[], []]
    assert replay.statistics()['t'].size == len(order)
    assert drained(replay, 't', len(order)) == order
  finally:
    replay.close()
