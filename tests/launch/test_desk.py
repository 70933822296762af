"""The desk's law: one worker for each life, each event once, no life without an end."""

from __future__ import annotations

import threading

import pytest

from callsheet import Program
from callsheet.errors import AuthError, NodeFailed
from callsheet.launch import courier, launch
from callsheet.launch.events import Exited, Failed, Ready
from callsheet.launch.remote import desk as desks
from callsheet.launch.remote.desk import Desk, Refusal, Welcome
from callsheet.launch.remote.routes import address_towards
from callsheet.launch.remote.ticket import Ticket
from callsheet.launch.remote.versions import difference, versions
from tests.launch.main import here
from tests.launch.services import Greeter

NODES, FIRST = {'actor': b'the nodes'}, {'actor': 'actor/0'}


def expecting(**options: object) -> tuple[Desk, list[object]]:
  desk, events = Desk(NODES, FIRST, **options), []
  assert desk.expect('actor', events.append) == 1
  return desk, events


def sign_on(desk: Desk, life: int | None = None, **changed: str) -> Welcome | Refusal:
  return desk.sign_on('actor', life, 'somewhere', {**versions(), **changed})


def test_a_worker_is_given_its_nodes():
  desk, _ = expecting(deadline=3.0)
  assert sign_on(desk, 1) == Welcome(1, b'the nodes', 3.0)
  assert desk.host_of('actor') == 'somewhere'


@pytest.mark.parametrize('life', [1, None])
def test_a_second_worker_for_the_same_life_is_refused(life, monkeypatch):
  monkeypatch.setattr(desks, 'POLL', 0.01)
  desk, _ = expecting()
  sign_on(desk, life)
  refusal = desk.sign_on('actor', life, 'elsewhere', versions())
  assert isinstance(refusal, Refusal) and 'at work on somewhere' in refusal.reason
  # One that was started by the cluster itself may be the replacement: it asks again.
  assert refusal.again == (life is None)


def test_a_worker_of_a_life_that_was_given_up_is_refused():
  desk, _ = expecting()
  sign_on(desk, 1)
  desk.end('actor', 1, 'silent')
  assert desk.expect('actor', lambda event: None) == 2
  assert isinstance(sign_on(desk, 1), Refusal)
  assert not desk.tell('actor', 1, 1, Ready('actor', True))
  assert not desk.announce('actor', 1, 'actor', 'tcp:a:1')
  assert desk.address_of('actor') is None
  assert desk.orders('actor', 1, 0) is None
  assert isinstance(sign_on(desk), Welcome)


def test_a_worker_that_its_cluster_has_started_again_ends_the_life_before(monkeypatch):
  monkeypatch.setattr(desks, 'POLL', 0.01)
  desk, events = expecting()
  sign_on(desk)
  assert sign_on(desk) == Refusal("'actor' is not due to start", again=True)
  (event,) = events
  assert 'its process on somewhere is gone' in event.reason
  desk.expect('actor', events.append)
  assert sign_on(desk) == Welcome(2, b'the nodes', 60.0)


def test_a_worker_that_is_early_waits_until_it_is_due():
  desk, events = expecting()
  desk.end('actor', 1, 'gone')
  threading.Timer(0.05, desk.expect, ('actor', events.append)).start()
  assert isinstance(sign_on(desk), Welcome)


def test_a_worker_that_is_not_due_asks_again(monkeypatch):
  monkeypatch.setattr(desks, 'POLL', 0.01)
  desk, _ = expecting()
  desk.end('actor', 1, 'gone')
  assert sign_on(desk) == Refusal("'actor' is not due to start", again=True)


def test_a_unit_that_the_program_lacks():
  desk, _ = expecting()
  refusal = desk.sign_on('critic', None, 'somewhere', versions())
  assert isinstance(refusal, Refusal) and not refusal.again


def test_events_that_are_told_twice_count_once():
  desk, events = expecting()
  sign_on(desk)
  for index in (1, 1, 2, 1, 2):
    assert desk.tell('actor', 1, index, Ready(f'actor{index}', True))
  assert events == [Ready('actor1', True), Ready('actor2', True)]


def test_a_life_ends_once():
  desk, events = expecting()
  sign_on(desk)
  assert desk.tell('actor', 1, 1, Exited('actor'))
  desk.end('actor', 1, 'its process is gone')
  desk.end('actor', 7, 'another')
  assert events == [Exited('actor')]


def test_orders_are_handed_over_once(monkeypatch):
  monkeypatch.setattr(desks, 'POLL', 0.01)
  desk, _ = expecting()
  sign_on(desk)
  assert desk.orders('actor', 1, 0) == []
  desk.stop('actor', 'one')
  assert desk.orders('actor', 1, 0) == ['one']
  assert desk.orders('actor', 1, 1) == []
  desk.dismiss('actor')
  assert desk.orders('actor', 1, 1) is None


def test_an_order_ends_the_wait_for_it():
  desk, _ = expecting()
  sign_on(desk)
  threading.Timer(0.05, desk.stop, ('actor', 'one')).start()
  assert desk.orders('actor', 1, 0) == ['one']


@pytest.mark.parametrize('signed_on', [True, False])
def test_a_worker_that_is_not_heard_of(signed_on):
  desk, events = expecting(arrival=0.0, silence=0.0)
  if signed_on:
    sign_on(desk)
  desk.look()
  (event,) = events
  expected = 'somewhere has been silent' if signed_on else 'has not signed on'
  assert expected in event.reason


def test_a_dismissed_worker_whose_end_nobody_confirms(monkeypatch):
  desk, events = expecting()
  sign_on(desk)
  desk.dismiss('actor')
  desk.look()
  assert events == []
  monkeypatch.setattr(desks, '_CONFIRM', 0.0)
  desk.look()
  assert 'does not confirm' in events[0].reason


def test_hosts_with_other_versions_are_refused():
  desk, events = expecting()
  refusal = sign_on(desk, jax='0.1')
  failed, exited = events
  assert isinstance(failed, Failed) and failed.failure.refused
  assert failed.node == failed.failure.node == 'actor/0'
  assert 'somewhere has jax 0.1 where the launcher has' in failed.failure.reason
  assert isinstance(exited, Exited) and refusal == Refusal(exited.reason)


def test_difference_names_what_differs():
  assert difference({'a': '1', 'b': '2'}, {'a': '1', 'b': '2'}) == ''
  assert difference({'a': '1'}, {}) == 'a none where the launcher has 1'


def test_other_versions_end_the_program(monkeypatch, tmp_path):
  monkeypatch.setattr(desks, 'versions', lambda: {**versions(), 'callsheet': '0.0'})
  program = Program('versions')
  with program.group('pair', colocate=True):
    program.add('greeter', Greeter)
    program.add('other', Greeter)
  with pytest.raises(NodeFailed, match=r'has callsheet .* install the same') as caught:
    launch(program, here(str(tmp_path)))
  assert caught.value.refused


def test_a_desk_takes_nobody_without_the_secret():
  server = courier.Server('tcp:127.0.0.1:0', b'right', 'desk')
  server.serve(Desk(NODES, FIRST))
  client = courier.connect(server.address, b'wrong', peer='desk')
  with pytest.raises(AuthError, match='does not hold the same secret'):
    client.address_of('actor')
  courier.close(client)
  server.close()


def test_the_secret_is_not_shown():
  ticket = Ticket('tcp:a:1', 'feed', 'actor', path=('/a',), environment={'A': '1'})
  assert 'feed' not in repr(ticket)
  assert Ticket.loads(ticket.dumps()) == ticket


def test_pods_of_one_job_share_a_ticket(monkeypatch):
  ticket = Ticket('tcp:a:1', 'feed', '', arrival=9.0)
  assert ticket.of_this_pod() == ticket
  monkeypatch.setenv('CALLSHEET_UNITS', 'actor/0,actor/1')
  monkeypatch.setenv('JOB_COMPLETION_INDEX', '1')
  assert ticket.of_this_pod().unit == 'actor/1'
  assert ticket.of_this_pod().arrival == 9.0


def test_the_address_is_that_of_the_route_not_of_the_name():
  assert address_towards('127.0.0.1') == '127.0.0.1'
