"""Blocks of time steps that don't fit, and declarations that can't work."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, Limiter, NStep, Sequences, Table
from callsheet.agents.step_tables import fewest_steps, max_steps, step_table
from callsheet.errors import UsageError
from callsheet.nodes import replay_checks
from callsheet.nodes.native_replay import NativeReplay
from tests.nodes.played import OneByOne, as_bytes, cut, play, stored, table

pytestmark = pytest.mark.timeout(60)

WRITES = NStep('t', 2, 0.9, num_stacked=2)


def changed(name, change):
  return lambda block: {**block, name: change(block[name])}


def without(name):
  return lambda block: {key: block[key] for key in block if key != name}


def unlike(step_type, *others):
  """The block with FIRST where there should be MID, or the other way round."""
  step_type = step_type.copy()
  step_type[others] = np.where(step_type[others] == 0, 1, 0)
  return step_type


WRONG = [
  (changed('reward', lambda x: x.astype(np.float64)), r"'reward' expected float32"),
  (changed('step_type', lambda x: x.astype(np.int64)), r"'step_type' expected int32"),
  (
    changed('observation', lambda x: np.concatenate([x, x], -1)),
    r"'observation' expected uint8 \[T, B, 2, 3, 1\], came uint8 \[5, 2, 2, 3, 2\]",
  ),
  (changed('action', lambda x: x[:, 0]), r"'action' expected int32 \[T, B\]"),
  (changed('carry', lambda x: x[..., :1]), r"'carry' expected int16 \[T, B, 2\]"),
  (changed('discount', lambda x: x[:-1]), r'expected one \[T, B\] for all'),
  (changed('reward', lambda x: x[:, :1]), r'expected one \[T, B\] for all'),
  (without('log_prob'), 'expected .*log_prob.*, came'),
  (lambda block: {**block, 'more': block['reward']}, "came .*'more'"),
  (lambda block: list(block.values()), 'came list'),
  (lambda b: {k: v[:, :0] for k, v in b.items()}, 'expected B >= 1 environments'),
  (lambda b: {k: v[:, :1] for k, v in b.items()}, r'B = 2 environments, came 1'),
  (
    lambda b: {k: np.concatenate([v, v], 1) for k, v in b.items()},
    r'B = 2 environments, came 4',
  ),
  (changed('step_type', lambda x: x * 0 + 3), r'2 \(LAST\), came \[3\]'),
  (changed('step_type', lambda x: x - 1), r'2 \(LAST\), came'),
  (changed('step_type', lambda x: unlike(x, 0, 1)), 'FIRST has to follow LAST'),
  (changed('step_type', lambda x: unlike(x, 3, 0)), 'FIRST has to follow LAST'),
]


@pytest.mark.parametrize(('wrong', 'message'), WRONG)
def test_a_block_that_does_not_fit_is_refused_whole(engine, wrong, message):
  declared = table(WRITES)
  replay, steps = engine([declared]), play(1, 20, 2)
  first, second, third = cut(steps, 10, 15)
  made = replay.append('t', 'a', first, fresh=True)
  with pytest.raises(ValueError, match=message):
    replay.append('t', 'a', wrong(second))
  assert replay.statistics()['t'].inserted == made
  # The source goes on as if nothing had been tried.
  replay.append('t', 'a', second)
  replay.append('t', 'a', third)
  items = sorted(map(as_bytes, OneByOne(declared, steps).items()))
  assert stored(replay, 't', 1500) == items


def test_a_source_has_to_begin(engine):
  declared = table(WRITES)
  replay, steps = engine([declared]), play(1, 12, 2)
  with pytest.raises(ValueError, match=r"'a' is not known .*fresh=True"):
    replay.append('t', 'a', steps)
  assert replay.append('t', 'a', steps, fresh=True) > 0
  with pytest.raises(ValueError, match=r"source 'b' is not known"):
    replay.append('t', 'b', steps)
  # A number and its name are two sources.
  replay.append('t', 1, steps, fresh=True)
  with pytest.raises(ValueError, match=r"source '1' is not known"):
    replay.append('t', '1', steps)


def test_a_source_begins_anew_amidst_an_episode(engine):
  declared = table(WRITES)
  replay = engine([declared])
  one, other = play(1, 11, 2, 0.0), play(2, 13, 3)
  expected = []
  for source, steps in (('a', one), ('b', one), ('a', other), ('b', other)):
    first, second = cut(steps, 6)
    made = replay.append('t', source, first, fresh=True)
    made += replay.append('t', source, second)
    items = OneByOne(declared, steps).items()
    assert made == len(items)
    expected += map(as_bytes, items)
  assert replay.statistics()['t'].size == len(expected)
  assert stored(replay, 't') == sorted(expected)


def test_steps_and_items_are_not_mixed(engine):
  declared = table(WRITES)
  items = Table('items', declared.columns, 10)
  replay, steps = engine([declared, items]), play(1, 5, 2)
  whole = {
    name: np.zeros((2, *spec.shape), spec.dtype)
    for name, spec in declared.columns.items()
  }
  with pytest.raises(ValueError, match=r"'t' is fed with time steps.*append\('t'"):
    replay.insert('t', whole)
  with pytest.raises(ValueError, match=r"'items' takes whole items.*insert\('items'"):
    replay.append('items', 'a', steps, fresh=True)
  with pytest.raises(ValueError, match=r"no table 'u'"):
    replay.append('u', 'a', steps, fresh=True)
  assert {s.inserted for s in replay.statistics().values()} == {0}


def test_more_environments_than_steps_are_held_for():
  declared = table(WRITES, max_steps=30)
  replay = NativeReplay([declared])
  try:
    with pytest.raises(ValueError, match=r'with 9 environments .* declare max_steps'):
      replay.append('t', 'a', play(1, 5, 9), fresh=True)
    replay.append('t', 'a', play(1, 5, 3), fresh=True)
    with pytest.raises(ValueError, match=r"of the source 'b' .* holds 30 steps"):
      replay.append('t', 'b', play(1, 5, 4), fresh=True)
    assert replay.append('t', 'a', play(1, 5, 3), fresh=True) > 0
  finally:
    replay.close()


def declared(writes=WRITES, **changes):
  """A table of steps, changed against the rules."""
  return dataclasses.replace(table(writes), **changes)


CAN_NOT = [
  (lambda: declared(name='u'), "written to 't'"),
  (lambda: declared(NStep('t', 0, 0.9)), 'span at least 1 step, came 0'),
  (lambda: declared(Sequences('t', 0, 1)), 'span at least 1 step, came 0'),
  (lambda: declared(Sequences('t', 4, 5)), r'from 1 to sequence_length \(4\), came 5'),
  (lambda: declared(Sequences('t', 4, 0)), r'from 1 to sequence_length \(4\), came 0'),
  (lambda: declared(NStep('t', 1, 0.9, 129)), 'from 1 to 128, came 129'),
  (
    lambda: step_table(
      EnvironmentSpec(specs.Array((4, 3), np.uint8), specs.Array((), np.int32)),
      NStep('t', 1, 0.9, num_stacked=2),
      10,
    ),
    r'observations \[4, 3\] are no stack of 2 frames along axis -1',
  ),
  (
    lambda: step_table(
      EnvironmentSpec(specs.Array((4,), np.uint8), specs.Array((), np.int32)),
      NStep('t', 1, 0.9, num_stacked=2, stack_axis=1),
      10,
    ),
    'along axis 1',
  ),
  (
    lambda: table(WRITES, extras={'mask': specs.Array((), np.int32)}),
    r"extras need other names: \['mask'\]",
  ),
  (lambda: declared(columns={'x': specs.Array((), np.int32)}), 'its columns'),
  (lambda: table(WRITES, max_steps=2), r'max_steps 2 could hold fewer than min_size'),
  (
    lambda: table(WRITES, max_steps=100, limiter=Limiter(50)),
    r'be at least 104',
  ),
]


@pytest.mark.parametrize(('make', 'message'), CAN_NOT)
def test_a_table_that_can_not_work_is_refused(make, message):
  with pytest.raises(UsageError, match=message):
    replay_checks.check_tables([make()])


@pytest.mark.parametrize('num_stacked', [0, -1])
def test_there_is_at_least_one_frame(num_stacked):
  wrong = dataclasses.replace(WRITES, num_stacked=num_stacked)
  steps = dataclasses.replace(table(WRITES).steps, writes=wrong)
  with pytest.raises(UsageError, match=f'from 1 to 128, came {num_stacked}'):
    replay_checks.check_tables([declared(steps=steps)])


def test_what_is_declared_is_what_is_held():
  assert max_steps(table(WRITES, max_steps=77)) == 77
  few = table(WRITES, 64_000, limiter=Limiter(100))
  assert fewest_steps(few) < 64_000 < max_steps(few) < 1.1 * 64_000
