"""Each unit sees the accelerators that it declares, and no other's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callsheet import Node, Program, Resources
from callsheet.errors import UsageError
from callsheet.launch.accelerators import CHIPS, GPUS, allot, chips_here, gpus_here
from tests.launch.services import Greeter


def needing(**resources: Resources) -> Program:
  program = Program('accelerated')
  for name, needed in resources.items():
    program.add(Node(name, resources=needed), Greeter)
  return program


def test_gpus_are_dealt_out():
  program = needing(a=Resources(gpus=2), b=Resources(), c=Resources(gpus=1))
  given = allot(program.plan(), {GPUS: '4,5,6'})
  assert given == {'a': {GPUS: '4,5'}, 'c': {GPUS: '6'}}


def test_chips_follow_the_topology():
  program = needing(a=Resources(tpu='v5e', tpu_topology='2x2'), b=Resources(tpu='v5e'))
  given = allot(program.plan(), {CHIPS: '0,1,2,3,4'})
  assert given == {'a': {CHIPS: '0,1,2,3'}, 'b': {CHIPS: '4'}}


def test_too_few_are_refused_with_the_numbers():
  program = needing(a=Resources(gpus=2), b=Resources(gpus=1))
  with pytest.raises(
    UsageError, match=r'needs 3 GPUs \(a 2, b 1\), this machine has 2'
  ):
    allot(program.plan(), {GPUS: '0,1'})
  with pytest.raises(UsageError, match='needs 4 TPU chips'):
    allot(needing(a=Resources(tpu='v5e', tpu_topology='2x2')).plan(), {CHIPS: '0'})


def test_a_node_that_chooses_for_itself_is_left_alone():
  program = needing(a=Resources(gpus=1, environment={GPUS: '7'}))
  assert allot(program.plan(), {GPUS: ''}) == {}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_no_gpu_is_given_twice(counts):
  program = needing(**{f'n{i}': Resources(gpus=n) for i, n in enumerate(counts)})
  here = [str(gpu) for gpu in range(sum(counts))]
  given = allot(program.plan(), {GPUS: ','.join(here)})
  dealt = [gpu for unit in given.values() for gpu in unit[GPUS].split(',')]
  assert sorted(dealt, key=int) == here
  assert all(
    len(given[f'n{i}'][GPUS].split(',')) == n for i, n in enumerate(counts) if n
  )


def test_what_was_hidden_from_this_process_is_not_there():
  assert gpus_here({GPUS: ''}) == gpus_here({GPUS: '-1'}) == []
  assert gpus_here({GPUS: 'GPU-1,GPU-2'}) == ['GPU-1', 'GPU-2']
  assert chips_here({CHIPS: '0,1'}) == ['0', '1']
