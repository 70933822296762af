"""Blocks of time steps and batches of stacked frames through the courier."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from callsheet.agents.base import EnvironmentSpec, NStep, Sequences
from callsheet.agents.step_tables import step_table
from callsheet.launch import courier
from callsheet.launch.courier.pickling import dumps, loads
from callsheet.nodes.step_items import new_columns
from tests.nodes.conftest import NATIVE
from tests.nodes.played import FIRST, LAST, OneByOne, as_bytes, play, stored
from tests.nodes.played import table as small_table

pytestmark = pytest.mark.timeout(60)

LARGE = NStep('t', 3, 0.9, num_stacked=4)
WRITES = [
  LARGE,
  NStep('t', 1, 0.9, num_stacked=3, stack_axis=0),
  Sequences('t', 5, 2, num_stacked=4),
  Sequences('t', 6, 3, True, num_stacked=2, stack_axis=1),
]


@pytest.fixture(params=['unix', 'tcp'])
def serve(request, engine, tmp_path):
  """A client of a replay of these tables."""
  opened = []

  def start(*tables):
    secret = secrets.token_bytes(32)
    unix = request.param == 'unix'
    address = f'unix:{tmp_path}/replay' if unix else 'tcp:127.0.0.1:0'
    server = courier.Server(address, secret, 'replay')
    server.serve(engine(tables))
    client = courier.connect(server.address, secret, peer='replay')
    opened.extend([client, server])
    return client

  yield start
  for end in opened:
    end.close() if isinstance(end, courier.Server) else courier.close(end)


def frames(seed, length, environments, size=64):
  """A stream of large frames, of which each pixel tells which one it is of."""
  steps = play(seed, length, environments)
  rng = np.random.default_rng(seed)
  shape = (length, environments, size, size, 1)
  return {**steps, 'observation': rng.integers(0, 256, shape, np.uint8)}


def large_table(writes, size=64):
  spec = small_table(writes).steps
  shape = [size, size, 1]
  shape[writes.stack_axis] *= writes.num_stacked
  observation = spec.observation.replace(shape=tuple(shape))
  extras = spec.extras
  return step_table(
    EnvironmentSpec(observation, spec.action), writes, 500, extras=extras
  )


@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_stacks_arrive_as_they_are(serve, writes):
  declared, steps = large_table(writes), frames(1, 40, 2)
  client = serve(declared)
  items = OneByOne(declared, steps).items()
  assert client.append('t', 'a', steps, fresh=True) == len(items)
  known = set(map(as_bytes, items))
  sample = client.sample('t', 16, 3)
  assert sample.keys.shape == (3, 16)
  for name, spec in declared.columns.items():
    column = sample.batch.data[name]
    assert (column.shape, column.dtype) == ((3, 16, *spec.shape), spec.dtype)
  for k, b in np.ndindex(3, 16):
    item = {name: column[k, b] for name, column in sample.batch.data.items()}
    assert as_bytes(item) in known


def test_small_ones_too(serve):
  declared, steps = small_table(LARGE), play(1, 30, 2)
  client = serve(declared)
  client.append('t', 'a', steps, fresh=True)
  items = sorted(map(as_bytes, OneByOne(declared, steps).items()))
  assert stored(client, 't', 1500) == items
  assert {FIRST, LAST} < set(steps['step_type'].ravel().tolist())


def test_a_misfit_arrives_as_its_own_error(serve):
  declared, steps = small_table(LARGE), play(1, 30, 2)
  client = serve(declared)
  with pytest.raises(ValueError, match=r"'a' is not known .*fresh=True"):
    client.append('t', 'a', steps)
  wrong = {**steps, 'reward': steps['reward'].astype(np.float64)}
  with pytest.raises(ValueError, match="'reward' expected float32"):
    client.append('t', 'a', wrong, fresh=True)


@pytest.mark.parametrize('count', [1, 8])
@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_what_lies_frame_behind_frame_is_sent_from_where_it_lies(writes, count):
  columns = new_columns(large_table(writes).steps, count)
  for name in ('observation', 'next_observation'):
    if (column := columns.get(name)) is None:
      continue
    column[...] = np.random.default_rng(0).integers(0, 256, column.shape)
    chunks, buffers = dumps(column)
    assert sum(map(len, chunks)) < 1000
    assert len(buffers) == 1 and buffers[0].nbytes == column.nbytes
    sent = np.frombuffer(buffers[0], np.uint8)
    assert np.shares_memory(sent, column)
    # What comes shows the very bytes, axes and all: nothing was laid out anew.
    again = loads(b''.join(chunks), buffers)
    assert np.shares_memory(again, column) and again.strides == column.strides
    np.testing.assert_array_equal(again, column)


@pytest.mark.parametrize('engine', NATIVE, indirect=True)
@pytest.mark.parametrize('writes', WRITES, ids=str)
def test_a_batch_is_what_was_gathered(engine, writes):
  replay = engine([large_table(writes)])
  replay.append('t', 'a', frames(1, 40, 2), fresh=True)
  column = replay.sample('t', 4, 2).batch.data['observation']
  # A copy would lie in the order of its axes.
  order = sorted(range(column.ndim), key=lambda axis: -column.strides[axis])
  memory = column.transpose(order)
  assert memory.flags.c_contiguous and not memory.flags.owndata
  stacks_apart = writes.stack_axis == -1
  assert stacks_apart == (order != list(range(column.ndim)))
