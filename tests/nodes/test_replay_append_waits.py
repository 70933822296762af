"""Appending under a limiter: waits, time that is up, and a replay that stops."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from callsheet.agents.base import Limiter, NStep, Sequences
from callsheet.calls import call_async
from callsheet.errors import CallCancelled, ReplayTimeout
from tests.nodes.played import FIRST, OneByOne, as_bytes, cut, drained, play, table
from tests.nodes.small import eventually

pytestmark = pytest.mark.timeout(60)

WRITES = NStep('t', 3, 0.9, num_stacked=2)
QUEUE = {'limiter': Limiter.queue(10), 'max_times_sampled': 1, 'sampler': 'fifo'}


def expected(declared, steps):
  return list(map(as_bytes, OneByOne(declared, steps).items()))


def waits(replay, writers):
  eventually(lambda: replay.statistics()['t'].waiting_writers >= writers)


@pytest.mark.parametrize('writes', [WRITES, Sequences('t', 4, 1)], ids=str)
def test_a_long_block_waits_and_goes_on(engine, writes):
  declared = table(writes, 10, **QUEUE)
  replay, steps = engine([declared]), play(0, 80, 2)
  items = expected(declared, steps)
  writing = call_async(replay.append, 't', 'a', steps, fresh=True)
  assert drained(replay, 't', len(items)) == items
  assert writing.result(20) == len(items)


def test_when_the_time_is_up_it_tells_how_much_is_stored(engine):
  declared = table(WRITES, 10, **QUEUE)
  replay, steps = engine([declared]), play(0, 60, 2)
  first, second = cut(steps, 40)
  with pytest.raises(ReplayTimeout, match=r'10 of \d+ were stored') as raised:
    replay.append('t', 'a', first, fresh=True, timeout=0.05)
  assert raised.value.done == 10 == replay.statistics()['t'].size
  items = expected(declared, steps)
  made = len(expected(declared, first))
  assert drained(replay, 't', 10) == items[:10]
  # The rest of the block is lost, not what the next one makes of its steps.
  writing = call_async(replay.append, 't', 'a', second)
  assert drained(replay, 't', len(items) - made) == items[made:]
  assert writing.result(20) == len(items) - made


def test_who_gave_up_behind_another_goes_on_with_whole_items(engine):
  declared = table(WRITES, 10, **QUEUE)
  replay = engine([declared])
  one, other = play(0, 40, 2), play(1, 60, 2)
  before, lost, after = cut(other, 3, 33)
  replay.append('t', 'b', before, fresh=True)
  early = replay.statistics()['t'].size
  writing = call_async(replay.append, 't', 'a', one, fresh=True)
  waits(replay, 1)
  with pytest.raises(ReplayTimeout) as raised:
    replay.append('t', 'b', lost, timeout=0.05)
  assert raised.value.done == 0
  ones = expected(declared, one)
  assert drained(replay, 't', early + len(ones))[early:] == ones
  assert writing.result(20) == len(ones)
  others = expected(declared, other)
  begun = OneByOne(declared, after).items()
  writing = call_async(replay.append, 't', 'b', after)
  whole = []
  while not writing.done() or replay.statistics()['t'].size:
    whole += drained(replay, 't', replay.statistics()['t'].size)
  assert writing.result() == len(whole)
  # No item joins what lies before the lost block to what lies behind it.
  assert set(whole) <= set(others)
  assert set(whole) >= set(map(as_bytes, begun))
  assert (after['step_type'][0] != FIRST).any()


def test_a_timeout_of_none_of_the_kinds_is_refused(engine):
  replay = engine([table(WRITES)])
  with pytest.raises(ValueError, match='timeout expected seconds of at least 0'):
    replay.append('t', 'a', play(0, 5, 1), fresh=True, timeout=-1)
  assert replay.append('t', 'a', play(0, 1, 1), fresh=True, timeout=0) == 0


def test_two_writers_that_wait_lose_nothing(engine):
  declared = table(WRITES, 10, **QUEUE)
  replay, streams = engine([declared]), [play(0, 50, 2), play(1, 50, 3)]
  items = [expected(declared, steps) for steps in streams]

  def write(source):
    for index, block in enumerate(cut(streams[source], *range(9, 50, 9))):
      replay.append('t', source, block, fresh=index == 0)

  writers = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(2)]
  for writer in writers:
    writer.start()
  drawn = drained(replay, 't', sum(map(len, items)))
  for writer in writers:
    writer.join(20)
  assert sorted(drawn) == sorted(items[0] + items[1])
  for source in range(2):
    assert [item for item in drawn if item in set(items[source])] == items[source]


def test_close_ends_every_appender_that_waits(engine):
  replay = engine([table(WRITES, 10, **QUEUE)])
  before = set(threading.enumerate())
  waiting = [
    call_async(replay.append, 't', i, play(i, 40, 2), fresh=True) for i in range(3)
  ]
  waits(replay, 3)
  assert replay.statistics()['t'].size == 10
  replay.close()
  for call in waiting:
    with pytest.raises(CallCancelled, match='replay is stopping'):
      call.result(10)
  with pytest.raises(CallCancelled, match='replay is stopping'):
    replay.append('t', 'a', play(0, 5, 1), fresh=True)
  for thread in set(threading.enumerate()) - before:
    thread.join(10)
    assert not thread.is_alive()


def test_a_source_has_one_block_on_its_way(engine):
  declared = table(WRITES, 10, **QUEUE)
  replay, steps = engine([declared]), play(0, 60, 2)
  first, second = cut(steps, 50)
  writing = call_async(replay.append, 't', 'a', first, fresh=True)
  waits(replay, 1)
  with pytest.raises(ValueError, match=r"source 'a' has a block on its way"):
    replay.append('t', 'a', second, timeout=0)
  items = expected(declared, steps)
  made = len(expected(declared, first))
  assert drained(replay, 't', made) == items[:made]
  assert writing.result(20) == made
  writing = call_async(replay.append, 't', 'a', second)
  assert drained(replay, 't', len(items) - made) == items[made:]
  assert writing.result(20) == len(items) - made
  assert np.unique(steps['step_type']).tolist() == [0, 1, 2]
