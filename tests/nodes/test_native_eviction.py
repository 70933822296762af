"""Old time steps are overwritten: the items that show them leave, and only these."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from callsheet.agents.base import Limiter, NStep, Sequences
from callsheet.calls import call_async
from callsheet.errors import ReplayTimeout
from tests.nodes.conftest import NATIVE
from tests.nodes.played import OneByOne, as_bytes, cut, play, stored, table

pytestmark = [
  pytest.mark.timeout(60),
  pytest.mark.parametrize('engine', NATIVE, indirect=True),
]

SIZE = 64
WRITES = [
  NStep('t', 1, 0.9),
  NStep('t', 3, 0.9, num_stacked=4),
  Sequences('t', 4, 2, num_stacked=3, stack_axis=0),
  Sequences('t', 5, 5, cross_episodes=True),
]
REMOVERS = ['fifo', 'lifo', 'uniform', 'prioritized', 'min_heap', 'max_heap']


class Reference:
  """What two sources have written, and what is left of it when steps go."""

  def __init__(self, declared, length=90):
    steps = [play(1, length, 2), play(2, length, 1)]
    self._blocks = [cut(s, *range(5, length, 7)) for s in steps]
    # Items show nothing that comes behind them: those of all steps will do.
    self._all = [OneByOne(declared, s) for s in steps]
    self._items = [
      [(_frames(declared.steps.writes, item), as_bytes(item)) for item in all.items()]
      for all in self._all
    ]
    self._ids, self._done, self._written = {}, [0, 0], 0

  def __len__(self):
    return 2 * len(self._blocks[0])

  def append(self, replay, call, **options):
    """The call in turn: a block of one source after one of the other."""
    number, source = divmod(call, 2)
    block = self._blocks[source][number]
    for frame in block['observation'].reshape(-1, 6):
      # No two frames are alike: they tell which step an item shows.
      assert self._ids.setdefault(frame.tobytes(), self._written) == self._written
      self._written += 1
    self._done[source] += len(block['reward'])
    return replay.append('t', source, block, fresh=number == 0, **options)

  def items(self, size=None):
    """Those complete so far, as bytes, of which `size` steps back all is there."""
    oldest = 0 if size is None else self._written - size
    found = []
    for all, items, done in zip(self._all, self._items, self._done, strict=True):
      for frames, item in items[: all.complete(done)]:
        if min(self._ids[frame] for frame in frames) >= oldest:
          found.append(item)
    return sorted(found)


def _frames(writes, item):
  """Those of its first observation, which are the oldest ones."""
  first = item['observation']
  if isinstance(writes, Sequences):
    first = first[0]
  frames = np.split(first, writes.num_stacked, writes.stack_axis % 3)
  return [frame.tobytes() for frame in frames]


@pytest.mark.parametrize('remover', ['fifo', 'prioritized', 'max_heap'])
@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_what_shows_a_lost_step_has_left(engine, writes, remover):
  declared = table(writes, max_steps=SIZE, remover=remover)
  replay, reference = engine([declared]), Reference(declared)
  for call in range(len(reference)):
    reference.append(replay, call)
    expected = reference.items(SIZE)
    assert replay.statistics()['t'].size == len(expected)
    if call % 5 == 0 and expected:
      assert stored(replay, 't', 1500) == expected
  assert 5 < len(expected) < len(reference.items()) // 2


@pytest.mark.parametrize('remover', REMOVERS)
def test_whoever_leaves_first_the_rest_is_whole(engine, remover):
  declared = table(WRITES[1], 15, max_steps=SIZE, remover=remover)
  replay, reference = engine([declared]), Reference(declared)
  for call in range(len(reference)):
    reference.append(replay, call)
    expected = reference.items(SIZE)
    size = replay.statistics()['t'].size
    assert size <= min(15, len(expected))
    if remover == 'fifo':
      assert size == min(15, len(expected))
    if size:
      there = stored(replay, 't', 600)
      assert len(there) == size and set(there) <= set(expected)


@pytest.mark.parametrize('remover', ['fifo', 'uniform'])
def test_items_leave_by_their_last_draw_as_well(engine, remover):
  declared = table(WRITES[1], max_steps=SIZE, remover=remover, max_times_sampled=2)
  replay, reference = engine([declared]), Reference(declared)
  drawn = {}
  for call in range(len(reference)):
    reference.append(replay, call)
    expected = reference.items(SIZE)
    for _ in range(min(4, replay.statistics()['t'].size)):
      data = replay.sample('t', 1, timeout=0).batch.data
      item = as_bytes({name: column[0, 0] for name, column in data.items()})
      assert item in expected
      drawn[item] = drawn.get(item, 0) + 1
    left = [item for item in expected if drawn.get(item, 0) < 2]
    assert replay.statistics()['t'].size == len(left)
  assert set(drawn.values()) == {1, 2}


@pytest.mark.parametrize('remover', ['fifo', 'max_heap'])
def test_the_gone_have_no_weight(engine, remover):
  declared = table(
    WRITES[1],
    max_steps=SIZE,
    sampler='prioritized',
    priority_exponent=1.0,
    remover=remover,
  )
  replay, reference = engine([declared]), Reference(declared)
  generator, weights, seen = np.random.default_rng(0), {}, set()
  for call in range(len(reference)):
    reference.append(replay, call)
    if not (expected := reference.items(SIZE)):
      continue
    # Those that are new have the highest priority so far: 8 from the first update on.
    sample = replay.sample('t', 2500)
    keys, first = np.unique(sample.keys[0], return_index=True)
    assert len(keys) == len(expected)
    if weights:
      weights = {int(key): weights.get(int(key), 8.0) for key in keys}
      total = sum(weights.values())
      shares = [weights[int(key)] / total for key in keys]
      np.testing.assert_allclose(sample.batch.probabilities[0][first], shares, 1e-5)
    given = generator.integers(4, 9, len(keys)).astype(np.float64)
    given[0] = 8.0
    replay.update_priorities('t', keys, given)
    weights = dict(zip(keys.tolist(), given, strict=True))
    # Keys of the gone change nothing.
    gone = np.array(sorted(seen - set(keys.tolist())), np.uint64)
    replay.update_priorities('t', gone, np.full(len(gone), 3.0))
    seen.update(keys.tolist())
  assert len(gone) > 20


@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_while_a_writer_waits_nothing_is_torn(engine, writes):
  limiter = Limiter(3, 2.0, 6.0)
  declared = table(writes, 20, max_steps=SIZE, limiter=limiter)
  replay, steps = engine([declared]), play(3, 400, 2)
  known = set(map(as_bytes, OneByOne(declared, steps).items()))
  writing = call_async(replay.append, 't', 'a', steps, fresh=True)
  drawn = 0
  while not writing.done():
    # Behind the writer's last item there may be nothing more to draw.
    with contextlib.suppress(ReplayTimeout):
      data = replay.sample('t', 1, timeout=0.1).batch.data
      assert as_bytes({name: column[0, 0] for name, column in data.items()}) in known
      drawn += 1
  assert writing.result() == len(known)
  assert drawn > len(known)


@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_a_source_that_comes_back_late_finds_its_own_steps_gone(engine, writes):
  declared = table(writes, max_steps=SIZE)
  replay, reference = engine([declared]), Reference(declared)
  end = len(reference)
  # All of the one source's blocks lie between the first and the second of the other.
  for call in (0, *range(1, end, 2), 2, 4):
    reference.append(replay, call)
    expected = reference.items(SIZE)
    assert replay.statistics()['t'].size == len(expected)
    if expected:
      assert stored(replay, 't', 1500) == expected
  # Items that begin in what is gone were complete only now, and never came in.
  assert replay.statistics()['t'].inserted < len(reference.items())
