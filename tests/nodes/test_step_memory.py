"""What tables of time steps take: each step once, however many items show it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, NStep, Sequences
from callsheet.agents.step_tables import max_steps, step_table
from callsheet.nodes import native_memory
from callsheet.nodes.native_guard import GuardedTable
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.replay_checks import shown_bytes

SPEC = EnvironmentSpec(specs.Array((84, 84, 4), np.uint8), specs.Array((), np.int32))
FRAME = 84 * 84
SIZE = 100_000


def frames(size=SIZE, n_step=3, **options):
  return step_table(SPEC, NStep('t', n_step, 0.99, num_stacked=4), size, **options)


def test_of_eight_frames_one_is_kept():
  steps = frames()
  whole = dataclasses.replace(steps, steps=None)
  share = native_memory.memory(steps) / native_memory.memory(whole)
  # A thirty-second for the ends of episodes, and what says where an item is.
  assert 1 / 8 < share < 1 / 8 * 1.07
  assert native_memory.memory(steps) > max_steps(steps) * FRAME


@pytest.mark.parametrize('sampler', ['uniform', 'prioritized'])
@pytest.mark.parametrize('remover', ['fifo', 'max_heap'])
def test_what_is_told_is_what_is_taken(sampler, remover):
  table = frames(3000, sampler=sampler, remover=remover)
  made = GuardedTable(table).table
  arrays = [array.nbytes for s in made.storages.values() for array in s.arrays.values()]
  assert sum(arrays) == native_memory.columns(table)
  others = native_memory.memory(table) - native_memory.columns(table)
  assert others == native_memory.memory(table, on_disk=True)
  # Besides frames: a few numbers an item, and a key for each frame of a step's stack.
  assert max_steps(table) * 8 * 4 < others < native_memory.columns(table) / 10


def test_check_states_it(tmp_path):
  table = frames(2000)
  taken = native_memory.memory(table)
  assert NativeReplay.check([table]) == f'{shown_bytes(taken)} of memory'
  place = str(tmp_path)
  stated = NativeReplay.check([table], columns_directory=place)
  own = shown_bytes(native_memory.memory(table, on_disk=True))
  on_disk = shown_bytes(native_memory.columns(table))
  assert stated == f'{own} of memory, {on_disk} in {place}'
  replay = NativeReplay([table], columns_directory=place)
  try:
    assert replay.statistics()['t'].bytes == taken
  finally:
    replay.close()


def test_overlapping_sequences_share_their_steps():
  writes = Sequences('t', 80, 40, num_stacked=4)
  steps = step_table(SPEC, writes, 1000)
  whole = dataclasses.replace(steps, steps=None)
  assert max_steps(steps) < 1.1 * 40 * 1000
  # 81 stacks of 4 frames an item, of which 40 frames are new.
  share = native_memory.memory(steps) / native_memory.memory(whole)
  assert share < 40 / (81 * 4) * 1.1


def test_fewer_steps_take_less():
  few = frames(max_steps=20_000)
  assert native_memory.columns(few) < native_memory.columns(frames()) / 4
