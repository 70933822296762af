"""Every replay engine behind the courier, as actors and learners reach it."""

from __future__ import annotations

import secrets
import threading
import time

import numpy as np
import pytest
from dm_env import specs

from callsheet.agents.base import Limiter, Table
from callsheet.calls import call_async
from callsheet.errors import CallCancelled, ReplayTimeout
from callsheet.launch import courier

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32), 'y': specs.Array((3,), np.float32)}


def block(*values):
  x = np.array(values, np.int32)
  return {'x': x, 'y': np.repeat(x[:, None], 3, axis=1).astype(np.float32)}


@pytest.fixture
def serve(engine, tmp_path):
  """A replay behind the courier, and a function that connects another client."""
  opened = []

  def start(*tables):
    secret = secrets.token_bytes(32)
    replay = engine(tables)
    server = courier.Server(f'unix:{tmp_path}/replay', secret, 'replay')
    server.serve(replay)
    opened.append(server)

    def connect():
      client = courier.connect(server.address, secret, peer='replay')
      opened.append(client)
      return client

    return replay, connect

  yield start
  for end in reversed(opened):
    end.close() if isinstance(end, courier.Server) else courier.close(end)


def test_blocks_and_batches_travel(serve):
  _, connect = serve(Table('t', COLUMNS, 100, sampler='prioritized'))
  client = connect()
  assert client.insert('t', block(1, 2, 3), np.ones(3, np.float32)) == 3
  sample = client.sample('t', 8, 2)
  assert sample.keys.dtype == np.uint64
  x, y = sample.batch.data['x'], sample.batch.data['y']
  np.testing.assert_array_equal(y, np.repeat(x[..., None], 3, axis=2))
  client.update_priorities('t', sample.keys, (x == 2).astype(np.float32))
  drawn = client.sample('t', 60).batch.data['x']
  assert 2 in drawn and not set(drawn.ravel().tolist()) & set(x.ravel().tolist()) - {2}
  assert client.statistics()['t'].sampled == 76


def test_a_bad_write_arrives_as_its_own_error(serve):
  _, connect = serve(Table('t', COLUMNS, 100))
  with pytest.raises(ValueError, match=r"no table 's'"):
    connect().insert('s', block(1))
  with pytest.raises(ValueError, match=r"'y' expected float32 \[N, 3\]"):
    connect().insert('t', {**block(1), 'y': np.zeros(3, np.float32)})


def test_many_clients_lose_nothing_under_a_limiter(serve):
  limiter = Limiter(10, 2.0, 20.0)
  replay, connect = serve(Table('t', COLUMNS, 10_000, limiter=limiter))
  clients = [connect() for _ in range(4)]

  def write(first):
    for start in range(first, first + 150, 15):
      clients[first // 1000].insert('t', block(*range(start, start + 15)))

  writers = [
    threading.Thread(target=write, args=(1000 * w,), daemon=True) for w in range(4)
  ]
  for writer in writers:
    writer.start()
  learner = connect()
  drawn = sum(learner.sample('t', 20, 2).keys.size for _ in range(29))
  for writer in writers:
    writer.join()
  statistics = replay.statistics()['t']
  assert (statistics.inserted, statistics.size) == (600, 600)
  assert statistics.sampled == drawn == 1160


def test_waiting_clients_hear_that_the_replay_stops(serve):
  replay, connect = serve(
    Table('t', COLUMNS, 10, limiter=Limiter(2, 1.0, 1.0)),
    Table('s', COLUMNS, 10, limiter=Limiter(5)),
  )
  waiting = [
    call_async(connect().insert, 't', block(*range(20))),
    call_async(connect().sample, 's', 4),
  ]
  while replay.statistics()['t'].state != 'actors wait':
    time.sleep(0.005)
  replay.close()
  for call in waiting:
    with pytest.raises(CallCancelled, match='replay is stopping'):
      call.result(10)


def test_a_limit_to_a_wait_travels_and_so_does_what_came_of_it(serve):
  _, connect = serve(Table.queue('t', COLUMNS, 3))
  client = connect()
  with pytest.raises(
    ReplayTimeout, match=r"'t': no insert within 0.05 s \(3 of 5"
  ) as late:
    client.insert('t', block(*range(5)), timeout=0.05)
  assert late.value.done == 3 and isinstance(late.value, TimeoutError)
  assert client.sample('t', 2, timeout=5).batch.data['x'].tolist() == [[0, 1]]
  with pytest.raises(
    ReplayTimeout, match=r'1 of 4 were drawn.: 0 of min_size 1'
  ) as late:
    client.sample('t', 4, timeout=0)
  assert late.value.done == 1
