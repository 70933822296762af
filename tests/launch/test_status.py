"""The status of a running program, as its launcher gathers it."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from pathlib import Path

import pytest

from callsheet import Node, OnFailure, Program
from callsheet.errors import UsageError
from callsheet.launch import Processes, start
from callsheet.launch.observe import document
from callsheet.launch.observe.document import (
  EdgeStatus,
  NodeStatus,
  Shares,
  Status,
  Waits,
  read,
)
from callsheet.launch.observe.gathering import Observing
from tests.launch import services
from tests.launch.conftest import wait_for


class Busy:
  """Computes for ever."""

  def run(self, stop: threading.Event) -> None:
    while not stop.is_set():
      sum(range(1000))


class Told:
  """Tells figures of its own."""

  def statistics(self) -> dict[str, float]:
    return {'size': 3, 'never': math.inf}


class Rude:
  """Its statistics are not made for strangers."""

  def statistics(self, table: str) -> str:
    raise AssertionError(table)


def program() -> Program:
  program = Program('seen')
  tally = program.add('tally', services.Tally)
  mailbox = program.add('mailbox', services.Mailbox)
  program.add('heart', services.Heart, tally, 'heart')
  program.add('consumer', services.Consumer, mailbox, tally)
  program.add('busy', Busy)
  program.add('told', Told)
  program.add('rude', Rude)
  return program


def by_name(status: Status) -> dict[str, NodeStatus]:
  return {node.name: node for node in status.nodes}


def test_a_program_is_seen_in_every_backend(backend, tmp_path: Path):
  folder = str(tmp_path)
  with Observing(folder, 'some') as observing, start(program(), backend) as running:
    observing.follow(running)

    def seen() -> bool:
      running.wait(0.1)
      status = observing.status
      nodes = by_name(status)
      edges = {(edge.caller, edge.callee): edge for edge in status.edges}
      return (
        all(node.answers and node.cpu is not None for node in nodes.values())
        and nodes['consumer'].waits.kind == 'call'
        and nodes['busy'].waits.kind == 'nothing'
        and bool(edges['heart', 'tally'].calls_per_second)
      )

    wait_for(seen, lambda: document.to_json(observing.status))
    written = read(folder)
    assert written.state == 'running' and written.program == 'seen'
    nodes = by_name(observing.status)
    stacks = observing.stacks('consumer')
  assert {'tally': 'serving', 'heart': 'running'}.items() <= {
    name: node.state for name, node in nodes.items()
  }.items()
  consumer = nodes['consumer']
  assert (consumer.waits.peer, consumer.waits.method) == ('mailbox', 'take')
  assert consumer.slowest == 'mailbox.take' and nodes['mailbox'].queue == 1
  assert nodes['busy'].recent.computing > 0.5
  assert all(node.memory and node.pid for node in nodes.values())
  assert nodes['told'].tables == {'size': 3, 'never': None}
  assert nodes['rude'].tables == {}
  edges = {(edge.caller, edge.callee): edge for edge in observing.status.edges}
  assert set(edges) == {
    ('heart', 'tally'),
    ('consumer', 'mailbox'),
    ('consumer', 'tally'),
  }
  assert 'services.py' in stacks and 'self._mailbox.take()' in stacks
  ended = read(folder)
  assert ended.state == 'finished'
  assert {node.state for node in ended.nodes} == {'stopped'}
  report = json.loads((tmp_path / 'bottlenecks.json').read_text())
  assert report['nodes']['consumer']['waiting']['mailbox.take'] > 0.5
  assert not list(tmp_path.glob('*.new'))


def test_a_node_that_is_halted_is_silent_and_holds_up_nobody(tmp_path: Path):
  made = Program('halted')
  tally = made.add('tally', services.Tally)
  made.add('heart', services.Heart, tally, 'heart')
  victim = made.add('victim', services.Forever, 'victim', str(tmp_path / 'closed'))
  with Observing() as observing, start(made, Processes()) as running:
    observing.follow(running)

    def seen() -> NodeStatus:
      running.wait(0.05)
      return by_name(observing.status)['victim']

    wait_for(lambda: seen().answers, seconds=30)
    pid = running.client(victim).pid()
    os.kill(pid, signal.SIGSTOP)
    try:
      wait_for(lambda: seen().silent, seconds=30)
      wait_for(lambda: seen().waits.kind == 'answer', seconds=30)
      nodes = by_name(observing.status)
      assert (
        not nodes['victim'].answers and 'no answer for' in nodes['victim'].waits.text
      )
      assert nodes['heart'].answers and nodes['tally'].answers
    finally:
      os.kill(pid, signal.SIGCONT)
    wait_for(lambda: seen().answers, seconds=30)


def test_restarts_are_seen_and_counts_begin_anew(tmp_path: Path):
  made = Program('restarted')
  policy = OnFailure(max_restarts=3, backoff=0.05)
  made.add(
    Node('victim', restart=policy), services.Forever, 'victim', str(tmp_path / 'closed')
  )
  with Observing() as observing, start(made, Processes()) as running:
    observing.follow(running)

    def victim() -> NodeStatus:
      running.wait(0.05)
      return observing.status.nodes[0]

    wait_for(lambda: victim().answers)
    before = victim().pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: victim().restarts == 1 and victim().pid != before)
    assert victim().state in ('starting', 'running')


def test_an_end_from_outside_is_a_good_one():
  made = Program('endless')
  made.add('spinner', services.Spinner)
  with start(made, 'threads') as running:
    threading.Timer(0.2, running.end).start()
    assert running.wait(60)


def test_how_a_program_ended_is_written(tmp_path: Path):
  made = Program('failing')
  made.add('bad', services.BadRun)
  with (
    pytest.raises(Exception, match='no run'),
    Observing(str(tmp_path)) as observing,
    start(made, 'threads') as running,
  ):
    observing.follow(running)
    running.wait()
  status = read(str(tmp_path))
  assert (status.state, status.nodes[0].state) == ('failed', 'failed')
  assert 'no run' in status.reason


def test_the_document_comes_back_as_it_was():
  node = NodeStatus(
    'learner',
    waits=Waits('call', 'replay.sample', 'replay', 'sample', 1.0, 0.7),
    whole=Shares(0.2, 0.1, {'replay.sample': 0.7}),
    tables={'transitions': {'credit': None}},
  )
  status = Status('dqn', nodes=(node,), edges=(EdgeStatus('learner', 'replay'),))
  assert document.from_json(document.to_json(status)) == status


def test_a_document_of_a_later_version_can_be_read():
  text = json.dumps({'program': 'p', 'new': 1, 'nodes': [{'name': 'a', 'newer': []}]})
  assert document.from_json(text).nodes == (NodeStatus('a'),)


@pytest.mark.parametrize(
  'text', [None, '', '{', '[]', '{"nodes": [{}]}', '{"nodes": 3}']
)
def test_what_is_no_status_is_refused(tmp_path: Path, text: str | None):
  if text is not None:
    (tmp_path / 'status.json').write_text(text)
  with pytest.raises(UsageError, match=r'status\.json can not be read'):
    read(str(tmp_path))


def test_a_folder_that_can_not_be_written_ends_nothing(tmp_path: Path):
  made = Program('short')
  made.add('heart', services.Heart, made.add('tally', services.Tally), 'heart')
  with (
    Observing(str(tmp_path / 'missing')) as observing,
    start(made, 'threads') as running,
  ):
    observing.follow(running)

    def answers() -> bool:
      running.wait(0.05)
      return observing.status.nodes[0].answers

    wait_for(answers, seconds=30)
  assert not os.listdir(tmp_path)
