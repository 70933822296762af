"""Reverb itself is asked at each step: its limiters are the law that we compute."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.base import Limiter, Table
from callsheet.nodes import reverb_port
from callsheet.nodes.limiting import Standing, credit, room
from callsheet.nodes.reverb_server import to_reverb

pytestmark = pytest.mark.timeout(120)

COLUMNS = {'x': specs.Array((), np.int32)}
ORDERS = st.sampled_from(['uniform', 'fifo', 'lifo', 'max_heap'])


@st.composite
def tables(draw):
  size = draw(st.integers(1, 8))
  if draw(st.booleans()):
    return draw(st.sampled_from([Table.queue, Table.stack]))('t', COLUMNS, size)
  ratio = draw(st.none() | st.sampled_from([0.3, 0.5, 1.0, 2.5, 3.0]))
  buffers = st.none()
  if ratio is not None:
    slack = max(1.0, ratio)
    around = st.tuples(st.floats(-5, 0), st.floats(0, 5)).map(
      lambda pair: (pair[0], pair[0] + 1 + ratio + pair[1])
    )
    buffers |= st.sampled_from([slack, 1.7 * slack]) | around
  limiter = Limiter(draw(st.integers(1, size)), ratio, draw(buffers))
  times = draw(st.integers(0, 3))
  return Table(
    't', COLUMNS, size, draw(ORDERS), 0.6, times, limiter, remover=draw(ORDERS)
  )


@settings(deadline=None, max_examples=40)
@given(table=tables(), steps=st.lists(st.booleans(), max_size=40))
def test_who_passes_is_what_reverb_says(table, steps):
  reverb = importlib.import_module('reverb')
  declared = to_reverb(reverb, table)
  with reverb_port.reserved(None) as port:
    server = reverb.pybind.Server([declared.internal_table], port, None)
    reverb_port.keep_on_host(port)
  client = reverb.pybind.Client(f'localhost:{port}')
  options = reverb.pybind.ConstantChunkerOptions(1, 1)
  writer = client.NewTrajectoryWriter(options, False)
  inserted = sampled = 0
  try:
    for inserts in steps:
      size = declared.info.current_size
      at = Standing(size, inserted, sampled)
      can_insert, can_sample = declared.can_insert(1), declared.can_sample(1)
      assert can_insert == (room(table.limiter, at) >= 1), at
      assert can_sample == (credit(table.limiter, at) >= 1), at
      assert can_insert or can_sample
      if inserts and can_insert:
        cells = [writer.Append([np.int32(inserted)])]
        writer.CreateItem('t', float(inserted % 3), cells, [True])
        writer.Flush(0, 20_000)
        inserted += 1
      elif not inserts and can_sample:
        client.NewSampler('t', 1, 1).GetNextTrajectory()
        sampled += 1
  finally:
    writer.Close()
    del writer, client
    server.Stop()
