"""Checkpoints of tables that are fed with time steps: bit for bit, and they go on."""

from __future__ import annotations

import numpy as np
import pytest

from callsheet.agents.base import Limiter, NStep, Sequences
from callsheet.calls import call_async
from callsheet.errors import UsageError
from tests.nodes.conftest import NATIVE
from tests.nodes.played import OneByOne, as_bytes, cut, play, table
from tests.nodes.small import eventually

pytestmark = [
  pytest.mark.timeout(60),
  pytest.mark.parametrize('engine', NATIVE, indirect=True),
]

WRITES = [
  NStep('t', 3, 0.9, num_stacked=4),
  Sequences('t', 4, 2, num_stacked=3, stack_axis=0),
  Sequences('t', 5, 5, cross_episodes=True),
]


def declared(writes, **options):
  options = {'sampler': 'prioritized', 'max_steps': 100, **options}
  return table(writes, 40, **options)


def held(replay):
  """By key, each item as bytes and with what probability it is drawn."""
  sample = replay.sample('t', 4000)
  keys, first = np.unique(sample.keys[0], return_index=True)
  assert len(keys) == replay.statistics()['t'].size
  columns = {name: column[0] for name, column in sample.batch.data.items()}
  return {
    int(key): (
      as_bytes({name: column[i] for name, column in columns.items()}),
      sample.batch.probabilities[0, i].tobytes(),
    )
    for key, i in zip(keys, first, strict=True)
  }


def prioritize(replay, seed):
  keys = np.array(sorted(held(replay)), np.uint64)
  generator = np.random.default_rng(seed)
  replay.update_priorities('t', keys, generator.integers(50, 90, len(keys)) / 8)


@pytest.mark.parametrize('writes', WRITES, ids=str)
@pytest.mark.parametrize('remover', ['fifo', 'max_heap'])
def test_all_comes_back_bit_for_bit_and_goes_on(engine, tmp_path, writes, remover):
  tables, place = [declared(writes, remover=remover)], str(tmp_path)
  first = engine(tables, checkpoint_directory=place)
  steps = play(1, 160, 2)
  blocks = cut(steps, 30, 38, 110, 120)
  known = set(map(as_bytes, OneByOne(tables[0], steps).items()))
  for number, block in enumerate(blocks[:4]):
    first.append('t', 'a', block, fresh=number == 0)
    prioritize(first, number)
    before = held(first)
    first.checkpoint()
    # What is behind one checkpoint is before the next one: each is of its moment.
    second = engine(tables, checkpoint_directory=place, restore=True)
    assert held(second) == before
    assert {item for item, _ in before.values()} <= known
    inserted = first.statistics()['t'].inserted
    assert second.statistics()['t'].inserted == inserted
  # The restored one knows no sources, and overwrites what the first one would.
  with pytest.raises(ValueError, match=r"'a' is not known .*fresh=True"):
    second.append('t', 'a', blocks[4])
  for replay in (first, second):
    replay.append('t', 'a', blocks[4], fresh=True)
  assert held(second).keys() == held(first).keys()
  items = {key: item for key, (item, _) in held(second).items()}
  assert items == {key: item for key, (item, _) in held(first).items()}
  known |= set(map(as_bytes, OneByOne(tables[0], blocks[4]).items()))
  assert set(items.values()) <= known and set(items) - set(before)
  # All that is left shows steps that were not overwritten in the meantime.
  more = play(2, 200, 3)
  second.append('t', 'b', more, fresh=True)
  again = set(map(as_bytes, OneByOne(tables[0], more).items()))
  assert {item for item, _ in held(second).values()} <= again


def test_draws_that_are_left_come_back(engine, tmp_path):
  tables = [declared(WRITES[0], sampler='fifo', max_times_sampled=2)]
  first = engine(tables, checkpoint_directory=str(tmp_path))
  steps = play(1, 60, 2)
  first.append('t', 'a', steps, fresh=True)
  items = list(map(as_bytes, OneByOne(tables[0], steps).items()))[-40:]
  left = first.statistics()['t'].size
  first.sample('t', 5)
  first.checkpoint()
  second = engine(tables, checkpoint_directory=str(tmp_path), restore=True)
  for replay in (first, second):
    data = replay.sample('t', 2 * left - 5, timeout=0).batch.data
    drawn = [
      as_bytes({name: column[0, i] for name, column in data.items()})
      for i in range(2 * left - 5)
    ]
    expected = [item for item in items[-left:] for _ in range(2)]
    assert drawn == expected[5:]
    assert replay.statistics()['t'].size == 0


def test_while_a_writer_waits_the_checkpoint_is_whole(engine, tmp_path):
  limiter = Limiter(3, 1.0, 12.0)
  tables = [declared(WRITES[0], limiter=limiter)]
  first = engine(tables, checkpoint_directory=str(tmp_path))
  steps = play(1, 90, 2)
  writing = call_async(first.append, 't', 'a', steps, fresh=True)
  eventually(lambda: first.statistics()['t'].waiting_writers)
  first.checkpoint()
  inserted = first.statistics()['t'].inserted
  second = engine(tables, checkpoint_directory=str(tmp_path), restore=True)
  assert second.statistics()['t'].inserted == inserted
  data = second.sample('t', 10, timeout=20).batch.data
  known = set(map(as_bytes, OneByOne(tables[0], steps).items()))
  for i in range(10):
    assert as_bytes({name: column[0, i] for name, column in data.items()}) in known
  while not writing.done():
    first.sample('t', 1)
    eventually(lambda: writing.done() or first.statistics()['t'].state == 'actors wait')
  assert writing.result() == len(known)


CHANGES = [
  {'writes': NStep('t', 2, 0.9, num_stacked=4)},
  {'writes': NStep('t', 3, 0.8, num_stacked=4)},
  {'writes': NStep('t', 3, 0.9, num_stacked=2)},
  {'max_steps': 101},
  {'extras': {}},
]


@pytest.mark.parametrize('changes', CHANGES, ids=str)
def test_a_checkpoint_of_other_steps_is_refused(engine, tmp_path, changes):
  first = engine([declared(WRITES[0])], checkpoint_directory=str(tmp_path))
  first.append('t', 'a', play(1, 30, 2), fresh=True)
  first.checkpoint()
  changed = declared(**{'writes': WRITES[0], **changes})
  with pytest.raises(UsageError, match="'t'"):
    engine([changed], checkpoint_directory=str(tmp_path), restore=True)
