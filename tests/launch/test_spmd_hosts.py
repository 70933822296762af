"""A node of two processes on two hosts, and what becomes of it if one vanishes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from callsheet.errors import NodeFailed
from callsheet.launch import Running, Ssh, start
from tests.launch import spmd_services
from tests.launch.conftest import wait_for
from tests.launch.hosts import Hosts, hosts

pytestmark = [pytest.mark.timeout(240), pytest.mark.clusters]

# A host has a name of its own, which leads to its address: gloo goes by it.
COMMAND = (
  *Hosts.command,
  *('unshare', '--uts', 'sh', '-c', 'hostname {host}; exec "$@"', 'sh'),
)


@pytest.fixture
def three(nothing_left: None) -> Iterator[Hosts]:
  with hosts(3) as made:
    folders = [Path('/etc/netns', name) for name in made.names]
    lines = [f'{a} {n}\n' for a, n in zip(made.addresses, made.names, strict=True)]
    try:
      for folder in folders:
        folder.mkdir(parents=True)
        (folder / 'hosts').write_text(f'127.0.0.1 localhost\n{"".join(lines)}')
      yield made
    finally:
      for folder in folders:
        shutil.rmtree(folder)


def backend(made: Hosts, tmp_path: Path) -> Ssh:
  return Ssh(
    hosts=made.names,
    command=COMMAND,
    address=made.address,
    log_directory=str(tmp_path / 'logs'),
    silence=8.0,
  )


def await_notes(running: Running) -> list[tuple[int, ...]]:
  tally = running.client('tally')
  wait_for(lambda: running.wait(0.05) or len(tally.notes()) >= 2, seconds=90)
  notes: list[tuple[int, ...]] = tally.notes()
  return notes


def test_two_hosts_are_one_machine(three, tmp_path):
  with start(spmd_services.members(2), backend(three, tmp_path)) as running:
    notes = await_notes(running)
    places = [
      running._crew.book.directory.address_of(n) for n in ('member', 'member.1')
    ]
  assert sorted(note[:5] for note in notes) == [(0, 2, 4, 2, 1), (1, 2, 4, 2, 1)]
  assert len({place.rsplit(':', 1)[0] for place in places}) == 2


@pytest.mark.parametrize('victim', ['member', 'member.1'])
def test_a_host_that_vanishes_ends_the_group(three, tmp_path, victim):
  running = start(spmd_services.members(2), backend(three, tmp_path))
  with pytest.raises(NodeFailed) as caught, running:
    await_notes(running)
    address = running._crew.book.directory.address_of(victim)
    host = three.addresses.index(address.split(':')[1])
    three.vanish(three.names[host])
    running.wait(60)
  assert caught.value.node == victim, str(caught.value)
