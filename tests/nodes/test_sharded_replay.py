"""Several replays as one: the same draws, the same law, keys that find their shard."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dm_env import specs
from scipy import stats

from callsheet.agents.base import Limiter, NStep, Table
from callsheet.calls import call_async
from callsheet.errors import ReplayTimeout, UsageError
from callsheet.launch import courier, launch
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.sharded_replay import ShardedReplay, joined
from callsheet.nodes.shards import shares
from callsheet.programs.actor_learner import actor_learner
from tests.nodes import small
from tests.nodes.played import play
from tests.nodes.played import table as step_table

pytestmark = pytest.mark.timeout(60)

COLUMNS = {'x': specs.Array((), np.int32), 'y': specs.Array((3,), np.float32)}


def block(*values):
  x = np.array(values, np.int32)
  return {'x': x, 'y': np.repeat(x[:, None], 3, axis=1).astype(np.float32)}


@pytest.fixture
def sharded():
  """Makes shards of one declaration, and their client."""
  made = []

  def make(table, number=3, **options):
    shards = [NativeReplay(tables) for tables in shares([table], number)]
    made.extend(shards)
    return ShardedReplay(shards, **{'max_age': 0.0, **options}), shards

  yield make
  for shard in made:
    shard.close()


def test_uniform_draws_are_those_of_one_replay(sharded):
  replay, shards = sharded(Table('t', COLUMNS, 60))
  # As unevenly as can be: 1, 4 and 15 items.
  for shard, values in zip(shards, (range(1), range(1, 5), range(5, 20)), strict=True):
    shard.insert('t', block(*values))
  sample = replay.sample('t', 2000, 5)
  drawn = sample.batch.data['x']
  assert drawn.shape == (5, 2000) and sample.batch.data['y'].shape == (5, 2000, 3)
  np.testing.assert_array_equal(sample.batch.data['y'][..., 0], drawn)
  assert stats.chisquare(np.bincount(drawn.ravel(), minlength=20)).pvalue > 1e-9
  np.testing.assert_allclose(sample.batch.probabilities, 1 / 20, rtol=1e-6)
  assert sample.batch.table_size.tolist() == [20] * 5
  # In random order: any part of a batch is drawn from all shards.
  assert stats.chisquare(np.bincount(drawn[0, :400], minlength=20)).pvalue > 1e-9


def test_prioritized_draws_are_those_of_one_replay(sharded):
  table = Table('t', COLUMNS, 60, sampler='prioritized', priority_exponent=0.7)
  replay, shards = sharded(table)
  priorities = np.arange(20.0)
  for shard, values in zip(shards, (range(1), range(1, 5), range(5, 20)), strict=True):
    shard.insert('t', block(*values), priorities[list(values)])
  expected = priorities**0.7 / (priorities**0.7).sum()
  sample = replay.sample('t', 10_000)
  drawn = sample.batch.data['x'][0]
  counts = np.bincount(drawn, minlength=20)
  assert counts[0] == 0
  assert stats.chisquare(counts[1:], expected[1:] * 10_000).pvalue > 1e-9
  np.testing.assert_allclose(sample.batch.probabilities[0], expected[drawn], rtol=1e-5)


def test_keys_find_their_items_again(sharded):
  table = Table('t', COLUMNS, 60, sampler='prioritized', priority_exponent=1.0)
  replay, _ = sharded(table)
  for value in range(12):
    replay.insert('t', block(value))
  assert [one.size for one in map(_only, replay._shards)] == [4, 4, 4]
  sample = replay.sample('t', 200)
  assert len(np.unique(sample.keys)) == 12
  new = np.where(sample.batch.data['x'] == 7, 5.0, 0.0)
  replay.update_priorities('t', sample.keys, new)
  assert set(replay.sample('t', 100).batch.data['x'].ravel().tolist()) == {7}
  replay.update_priorities('t', sample.keys, np.zeros(sample.keys.shape))
  assert len(set(replay.sample('t', 400).batch.data['x'].ravel().tolist())) == 12


def _only(shard):
  return shard.statistics()['t']


def test_statistics_are_summed_up(sharded):
  replay, shards = sharded(Table('t', COLUMNS, 61, limiter=Limiter(6, 2.0, 30.0)))
  assert replay.statistics()['t'].state == 'filling'
  for value in range(9):
    replay.insert('t', block(value))
  replay.sample('t', 7)
  now = replay.statistics()['t']
  assert (now.size, now.max_size, now.inserted, now.sampled) == (9, 61, 9, 7)
  assert now.samples_per_insert == 7 / 9 and now.state == 'open'
  assert now.credit == sum(_only(shard).credit for shard in shards)
  assert now.mass == 9.0 and now.bytes == sum(_only(s).bytes for s in shards)


@pytest.mark.parametrize('number', [1, 2, 3])
def test_a_limiter_holds_in_total_and_nobody_waits_for_ever(sharded, number):
  limiter = Limiter(6, 4.0, 24.0)
  replay, shards = sharded(Table('t', COLUMNS, 10_000, limiter=limiter), number)
  clients = [ShardedReplay(shards, max_age=0.01) for _ in range(3)]

  def write(client):
    for start in range(0, 300, 10):
      client.insert('t', block(*range(start, start + 10)))

  writing = [call_async(write, client) for client in clients]
  drawn = 0
  while not all(call.done() for call in writing):
    try:
      drawn += replay.sample('t', 32, 2, timeout=0.2).keys.size
    except ReplayTimeout as late:
      drawn += late.done
  for call in writing:
    call.result()
  now = replay.statistics()['t']
  assert (now.inserted, now.sampled) == (900, drawn)
  for one in map(_only, shards):
    owed = 4.0 * one.inserted - one.sampled
    middle, slack = 4.0 * 6 / number, 24.0 / number
    assert middle - slack <= owed <= middle + slack


def test_a_shard_that_is_still_empty_is_passed_over(sharded):
  replay, shards = sharded(Table('t', COLUMNS, 60))
  shards[1].insert('t', block(1, 2, 3))
  assert set(replay.sample('t', 60).batch.data['x'].ravel().tolist()) == {1, 2, 3}
  with pytest.raises(ReplayTimeout, match='3 shards have 0 items, filling'):
    sharded(Table('t', COLUMNS, 60))[0].sample('t', 4, timeout=0.01)


def test_items_without_priority_are_drawn_where_no_others_can_be(sharded):
  table = Table('t', COLUMNS, 60, sampler='prioritized', limiter=Limiter(6))
  replay, shards = sharded(table, 2)
  shards[0].insert('t', block(1, 2, 3), np.zeros(3))
  shards[1].insert('t', block(9), np.ones(1))
  drawn = replay.sample('t', 30, timeout=20).batch.data['x']
  assert set(drawn.ravel().tolist()) == {1, 2, 3}


def test_a_queue_in_shards_hands_over_each_item_once(sharded):
  replay, _ = sharded(Table.queue('t', COLUMNS, 30))
  writing = call_async(
    lambda: [replay.insert('t', block(*range(s, s + 7))) for s in range(0, 140, 7)]
  )
  seen = np.concatenate(
    [replay.sample('t', 14, timeout=20).batch.data['x'][0] for _ in range(10)]
  )
  writing.result()
  assert sorted(seen.tolist()) == list(range(140))


def test_a_source_stays_with_its_shard(sharded):
  declared = step_table(NStep('t', 3, 0.9))
  replay, shards = sharded(declared)
  for source in (4, 'an actor'):
    steps = play(1, 30, 2)
    first = {name: column[:11] for name, column in steps.items()}
    rest = {name: column[11:] for name, column in steps.items()}
    replay.append('t', source, first, fresh=True)
    replay.append('t', source, rest)
  sizes = [_only(shard).size for shard in shards]
  assert sum(sizes) == replay.statistics()['t'].size and sizes[1] >= 40


def test_bad_calls_are_refused_as_one_replay_does(sharded):
  replay, _ = sharded(Table('t', COLUMNS, 60))
  replay.insert('t', block(1))
  with pytest.raises(ValueError, match="no table 's'"):
    replay.sample('s', 4)
  with pytest.raises(ValueError, match='batch_size >= 1'):
    replay.sample('t', 0)
  with pytest.raises(ValueError, match='uint64'):
    replay.update_priorities('t', np.array([1]), np.ones(1))
  with pytest.raises(UsageError, match='needs a shard'):
    ShardedReplay([])


def test_keys_too_large_to_name_a_shard_are_refused(sharded):
  replay, shards = sharded(Table('t', COLUMNS, 60))
  for shard in shards:
    shard.insert('t', block(1))
  for shard in shards:
    shard._guarded['t'].table._places.keys = lambda slots: np.full(
      len(slots), 2**63, np.uint64
    )
  with pytest.raises(UsageError, match='no room to name their shard'):
    replay.sample('t', 4)


@pytest.mark.parametrize('number', [1, 2, 3, 7])
def test_tables_are_split_exactly(number):
  table = Table('t', COLUMNS, 1001, limiter=Limiter(50, 4.0, 100.0))
  parts = [tables[0] for tables in shares([table], number)]
  assert sum(part.max_size for part in parts) == 1001
  assert sum(part.limiter.min_size for part in parts) == 50
  assert sum(part.limiter.error_buffer for part in parts) == pytest.approx(100.0)
  assert {part.limiter.samples_per_insert for part in parts} == {4.0}
  for part in parts:
    NativeReplay([part]).close()
  queues = [tables[0] for tables in shares([Table.queue('q', COLUMNS, 20)], 3)]
  assert [q.limiter.error_buffer[1] for q in queues] == pytest.approx([7, 7, 6])


@pytest.mark.parametrize(
  ('size', 'limiter', 'message'),
  [
    (3, Limiter(3), 'too few for 4 shards'),
    (1000, Limiter(50, 8.0, 20.0), 'declare at least 32'),
  ],
)
def test_tables_that_can_not_be_split_are_refused(size, limiter, message):
  with pytest.raises(UsageError, match=message):
    shares([Table('t', COLUMNS, size, limiter=limiter)], 4)


def test_one_shard_is_the_replay_itself():
  replay = object()
  assert joined(replay) is replay and joined([replay]) is replay  # type: ignore


def test_a_node_that_stops_still_has_statistics(tmp_path):
  served = []
  for index in range(2):
    replay = NativeReplay([Table('t', COLUMNS, 100)])
    server = courier.Server(f'unix:{tmp_path}/{index}', b'secret', f'replay/{index}')
    server.serve(replay)
    served.append(server)
  clients = [courier.connect(s.address, b'secret', peer='replay') for s in served]
  try:
    replay = ShardedReplay(clients)
    replay.insert('t', block(1, 2, 3))
    replay.insert('t', block(4))
    for client in clients:
      courier.cancel_blocking(client)
    assert replay.statistics()['t'].size == 4
  finally:
    for client in clients:
      courier.close(client)
    for server in served:
      server.close()


@pytest.mark.timeout(150)  # eight nodes that each import JAX
@pytest.mark.parametrize('backend', ['threads', 'processes'])
def test_a_program_learns_from_two_shards(backend, tmp_path):
  agent = small.agent()
  program = actor_learner(
    agent,
    small.countdowns,
    num_replays=2,
    num_environments=4,
    updates_per_dispatch=2,
    max_actor_steps=600,
    num_episodes=2,
    run_directory=str(tmp_path),
  )
  assert {'replay/0', 'replay/1'} <= {node.name for node in program.plan().nodes}
  launch(program, backend)
  # The last row is written while the program stops, and asks the shards once more.
  last = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])
  assert last['actor_steps'] >= 600 and last['learner_steps'] > 0
  assert last['replay_size'] > 0
