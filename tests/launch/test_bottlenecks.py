"""One sentence for what holds a program, of made-up times."""

from __future__ import annotations

import pytest

from callsheet.launch.observe.bottlenecks import (
  Group,
  bottlenecks,
  busy_share,
  groups,
  sentence,
)
from callsheet.launch.observe.document import NodeStatus, Shares, Status
from callsheet.launch.observe.tracks import shares
from callsheet.launch.observe.waiting import waits
from callsheet.launch.standing import Standing


def node(
  name: str, computing: float = 0.0, cpu: float = 0.1, pid: int = 0, **calls: float
) -> NodeStatus:
  """A node; `replay_sample=0.5` is half of its time spent waiting for that."""
  waiting = {call.replace('_', '.'): share for call, share in calls.items()}
  idle = 1 - computing - sum(waiting.values())
  time = Shares(computing, 0.0, waiting, idle)
  return NodeStatus(
    name, host='here', pid=pid or hash(name), cpu=cpu, recent=time, whole=time
  )


def held(*nodes: NodeStatus, cores: int = 8) -> str:
  return sentence(Status('p', host='here', cores=cores, nodes=nodes))


ACTORS = (node('actor/0', 0.9, replay_insert=0.1), node('actor/1', 0.9))


@pytest.mark.parametrize(
  ('nodes', 'expected'),
  [
    pytest.param(
      (node('learner', 0.29, replay_sample=0.71), node('replay', 0.1), *ACTORS),
      'the learner waits for data 71% of the time: add actors or raise '
      'samples_per_insert',
      id='learner waits for data',
    ),
    pytest.param(
      (node('learner', 0.29, replay_sample=0.71), node('replay', 0.9), *ACTORS),
      'the learner waits for data 71% of the time, and the replay works 90% of it: '
      'raise num_replays, or draw larger batches less often',
      id='the replay is slow',
    ),
    pytest.param(
      (node('learner', 0.29, cpu=7.9, replay_sample=0.71), *ACTORS),
      'the learner waits for data 71% of the time, and the machine is full: add cores '
      'or hosts for the actors, or raise samples_per_insert',
      id='learner waits and the machine is full',
    ),
    pytest.param(
      (node('learner', 0.4, dataset_sample=0.6), node('dataset', 0.1)),
      'the learner waits for data 60% of the time: its dataset is too slow; prefetch '
      'more, or read from memory',
      id='offline',
    ),
    pytest.param(
      (
        node('learner', 0.96, replay_sample=0.01),
        node('actor/0', 0.5, replay_insert=0.5),
        node('actor/1', 0.3, replay_append=0.7),
      ),
      'the 2 actors wait for the replay to take data 60% of the time, for its limiter '
      'lets the learner catch up, which computes 96% of it: make the learner faster, '
      'take fewer actors or lower samples_per_insert',
      id='actors wait for the limiter',
    ),
    pytest.param(
      (node('actor/0', 0.5, replay_insert=0.5), node('replay', 0.8)),
      'the actor waits for the replay to take data 50% of the time, and the replay '
      'works 80% of it: raise num_replays',
      id='the replay is slow to write',
    ),
    pytest.param(
      (node('actor/0', 0.4, inference_act=0.6), node('inference', 0.5)),
      'the actor waits for inference 60% of the time: raise num_inference_servers, or '
      'give them an accelerator',
      id='actors wait for inference',
    ),
    pytest.param(
      (node('actor/0', 0.4, cpu=8, inference_act=0.6),),
      'the actor waits for inference 60% of the time, and the machine is full: give '
      'the servers an accelerator or a host',
      id='inference on a full machine',
    ),
    pytest.param(
      (node('actor/0', 0.6, learner_parameters=0.4),),
      'the actor waits for parameters 40% of the time: raise num_relays, or pull less '
      'often',
      id='parameters',
    ),
    pytest.param(
      (node('worker/0', 0.2, store_get=0.8), node('store', 0.95)),
      'the worker waits for store.get 80% of the time, and the store computes 95% of '
      'it: make it faster, or share its work among several',
      id='any busy node',
    ),
    pytest.param(
      (node('worker/0', 0.2, store_get=0.8), node('store', 0.1)),
      'the worker waits for store.get 80% of the time: see what that node waits for '
      'in turn',
      id='any node',
    ),
    pytest.param(
      (
        node('learner', 0.8, cpu=4.0, replay_sample=0.2),
        node('actor/0', 0.9, cpu=3.6, replay_insert=0.1),
      ),
      'the machine is full: its 8 cores are 95% busy, and the actor computes 90% of '
      'the time: add cores or hosts',
      id='everyone computes',
    ),
    pytest.param(
      (node('learner', 0.95, replay_sample=0.05), node('actor/0', 0.5)),
      'the learner computes 95% of the time: give it a faster device, or a smaller '
      'network',
      id='the learner computes',
    ),
    pytest.param(
      (node('learner', 0.1), node('actor/0', 0.8, replay_insert=0.2)),
      'the actor computes 80% of the time: add actors, or make the environment faster',
      id='the actor computes',
    ),
    pytest.param(
      (node('worker', 0.8),),
      'the worker computes 80% of the time: make it faster, or share its work among '
      'several',
      id='a worker computes',
    ),
    pytest.param(
      (node('heart', 0.1, tally_note=0.1), node('tally')),
      'nothing holds it: no node waits for another, or computes, most of the time',
      id='nothing',
    ),
    pytest.param((NodeStatus('learner'),), '', id='not looked at'),
    pytest.param((), '', id='no nodes'),
  ],
)
def test_the_sentence(nodes: tuple[NodeStatus, ...], expected: str):
  assert held(*nodes) == expected


def test_nodes_of_a_kind_are_one_group():
  found = groups(
    (
      node('actor/0', 0.2, **{'replay/0_insert': 0.4}),
      node('actor/1', 0.4, **{'replay/1_insert': 0.6}),
      node('learner.1', 0.5),
      NodeStatus('actor/2'),
    )
  )
  assert [(group.name, group.size) for group in found] == [('actor', 2), ('learner', 1)]
  assert found[0].time.computing == pytest.approx(0.3)
  assert found[0].time.waiting == {'replay.insert': pytest.approx(0.5)}
  assert Group('actor', 2, Shares()).says('wait') == 'the 2 actors wait'


def test_a_process_that_nodes_share_counts_once():
  nodes = (node('a', cpu=1.0, pid=7), node('b', cpu=1.0, pid=7), node('c', cpu=0.5))
  elsewhere = NodeStatus('d', host='there', pid=7, cpu=9.0)
  status = Status('p', host='here', cores=2, nodes=(*nodes, elsewhere))
  assert busy_share(status) == pytest.approx(0.75)


def test_the_report_has_every_node_and_kind():
  status = Status('p', nodes=(node('actor/0', 0.5), node('actor/1', 0.7)))
  report = bottlenecks(status)
  assert set(report['nodes']) == {'actor/0', 'actor/1'}
  assert report['kinds']['actor']['nodes'] == 2
  assert report['kinds']['actor']['computing'] == pytest.approx(0.6)


def test_shares_of_what_was_seen():
  seen = {'computing': 6, 'sending': 1, 'idle': 1, 'replay.sample': 2, 'gone.ask': 0}
  assert shares(seen) == Shares(0.6, 0.1, {'replay.sample': 0.2}, 0.1)
  assert not shares({}).known


HELD = {
  'transitions': {
    'credit': 0.0,
    'state': 'learner waits',
    'waiting_samplers': 1,
    'samplers_blocked_seconds': 2.0,
    'waiting_writers': 0,
    'writers_blocked_seconds': 0.0,
  },
  'size': 3,
}


@pytest.mark.parametrize(
  ('state', 'silent', 'time', 'slowest', 'tables', 'kind', 'text'),
  [
    ('starting', None, Shares(), ('', 0.0), {}, 'start', 'its constructor to return'),
    ('restarting', 1.0, Shares(), ('', 0.0), {}, 'start', 'its start'),
    ('stopped', 1.0, Shares(), ('', 0.0), {}, 'end', ''),
    ('running', 12.0, Shares(1.0), ('', 0.0), {}, 'answer', 'no answer for 12 s'),
    ('running', None, Shares(), ('', 0.0), {}, 'answer', 'no answer yet'),
    (
      'serving',
      0.1,
      Shares(idle=1.0),
      ('', 0.0),
      HELD,
      'limiter',
      'inserts in transitions: 1 sampler blocked, the first for 2.0 s '
      '(credit 0, learner waits)',
    ),
    (
      'running',
      0.1,
      Shares(0.3, 0.0, {'replay.sample': 0.7}),
      ('replay.sample', 4.0),
      {},
      'call',
      'replay.sample 70% of the time, 4.0 s by now',
    ),
    (
      'running',
      0.1,
      Shares(0.9, 0.0, {'replay.sample': 0.1}),
      ('', 0.0),
      {},
      'nothing',
      'nothing: computes 90% of the time',
    ),
    (
      'serving',
      0.1,
      Shares(idle=1.0),
      ('', 0.0),
      {},
      'callers',
      'calls, or time to pass',
    ),
    (
      'finished',
      0.1,
      Shares(idle=1.0),
      ('', 0.0),
      {},
      'end',
      'the end: its loop has returned',
    ),
    ('running', 0.1, Shares(), ('', 0.0), {}, '', ''),
  ],
)
def test_what_a_node_waits_for(state, silent, time, slowest, tables, kind, text):
  found = waits(Standing(state, 0, ''), silent, time, slowest, tables)
  assert (found.kind, found.text) == (kind, text)
