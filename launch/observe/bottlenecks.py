"""What holds a program: rules that make one sentence of its nodes' time.

What a node is, is told by what it calls: a learner is who calls `sample`, an actor who
calls `insert` or `append`, whatever their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callsheet.launch.observe.document import NodeStatus, Shares, Status, plain

# Shares from which on a wait holds the program, a node is busy, a machine is full.
HOLDS, BUSY, FULL = 0.3, 0.75, 0.9

_WRITING = ('insert', 'append')


@dataclass(frozen=True)
class Group:
  """Nodes that are alike, such as all actors: how their time was spent on average.

  Attributes:
    name: without the numbers of its nodes: 'actor'.
    size: how many they are.
    time: the mean of their shares.
  """

  name: str
  size: int
  time: Shares

  def waits_for(self, *methods: str) -> float:
    """The share of the time in which it waits for these methods, of whichever node."""
    return sum(
      share
      for call, share in self.time.waiting.items()
      if call.rpartition('.')[2] in methods
    )

  def says(self, verb: str) -> str:
    """'the learner waits', 'the 8 actors wait'."""
    if self.size == 1:
      return f'the {self.name} {verb}s'
    return f'the {self.size} {self.name}s {verb}'


def groups(nodes: Sequence[NodeStatus]) -> list[Group]:
  """The nodes by kind, those that were never looked at left out."""
  members: dict[str, list[Shares]] = {}
  for node in nodes:
    if node.whole.known:
      members.setdefault(_kind(node.name), []).append(node.whole)
  return [Group(name, len(each), _mean(each)) for name, each in members.items()]


def sentence(status: Status) -> str:
  """What holds the program, and what to do; empty while nobody was looked at."""
  found = groups(status.nodes)
  if not found:
    return ''
  full = busy_share(status) >= FULL
  return (
    _data(found, full)
    or _machine(status, found, full)
    or _busiest(found)
    or 'nothing holds it: no node waits for another, or computes, most of the time'
  )


def busy_share(status: Status) -> float:
  """How much of the launcher's machine the nodes use, in parts of 1."""
  cpu = {
    (node.host, node.pid): node.cpu or 0.0
    for node in status.nodes
    if node.host == status.host
  }
  return sum(cpu.values()) / max(1, status.cores)


def bottlenecks(status: Status) -> dict[str, Any]:
  """The report: the sentence, and of each node and kind of node how its time was spent.

  In parts of 1: `computing`, `sending`, `waiting` by 'node.method', and `idle`.
  """
  return {
    'sentence': sentence(status),
    'cpu': busy_share(status),
    'kinds': {
      group.name: {'nodes': group.size, **plain(group.time)}
      for group in groups(status.nodes)
    },
    'nodes': {node.name: plain(node.whole) for node in status.nodes},
  }


def _data(found: Sequence[Group], full: bool) -> str:
  """Who waits for whom, from actors to the learner and back."""
  waits = [
    (learner.waits_for('sample'), _learner_waits(learner, found, full))
    for learner in found
  ]
  waits += [(actor.waits_for(*_WRITING), _actors_wait(actor, found)) for actor in found]
  waits += [(group.waits_for('act'), _inference(group, full)) for group in found]
  waits += [(group.waits_for('parameters'), _parameters(group)) for group in found]
  waits += [(_others(group)[1], _waits_for_another(group, found)) for group in found]
  share, text = max(waits, key=lambda each: each[0])
  return text if share >= HOLDS else ''


def _learner_waits(learner: Group, found: Sequence[Group], full: bool) -> str:
  share = learner.waits_for('sample')
  text = f'{learner.says("wait")} for data {share:.0%} of the time'
  server = _callee(learner, found, 'sample')
  if server is not None and server.time.computing + server.time.sending >= BUSY:
    busy = server.time.computing + server.time.sending
    return (
      f'{text}, and {server.says("work")} {busy:.0%} of it: '
      'raise num_replays, or draw larger batches less often'
    )
  writers = [group for group in found if _writes(group)]
  if not writers:
    others = [group for group in found if group.name != learner.name]
    if not any(_acts(group) for group in others):
      return f'{text}: its dataset is too slow; prefetch more, or read from memory'
  if full:
    return (
      f'{text}, and the machine is full: add cores or hosts for the actors, '
      'or raise samples_per_insert'
    )
  return f'{text}: add actors or raise samples_per_insert'


def _actors_wait(actor: Group, found: Sequence[Group]) -> str:
  share = actor.waits_for(*_WRITING)
  text = f'{actor.says("wait")} for the replay to take data {share:.0%} of the time'
  server = _callee(actor, found, *_WRITING)
  if server is not None and server.time.computing + server.time.sending >= BUSY:
    busy = server.time.computing + server.time.sending
    return f'{text}, and {server.says("work")} {busy:.0%} of it: raise num_replays'
  learner = next((group for group in found if group.waits_for('sample')), None)
  busy = 0.0 if learner is None else learner.time.computing
  working = f', which computes {busy:.0%} of it' if busy >= HOLDS else ''
  return (
    f'{text}, for its limiter lets the learner catch up{working}: make the learner '
    'faster, take fewer actors or lower samples_per_insert'
  )


def _inference(group: Group, full: bool) -> str:
  share = group.waits_for('act')
  text = f'{group.says("wait")} for inference {share:.0%} of the time'
  if full:
    return f'{text}, and the machine is full: give the servers an accelerator or a host'
  return f'{text}: raise num_inference_servers, or give them an accelerator'


def _parameters(group: Group) -> str:
  share = group.waits_for('parameters')
  return (
    f'{group.says("wait")} for parameters {share:.0%} of the time: '
    'raise num_relays, or pull less often'
  )


def _waits_for_another(group: Group, found: Sequence[Group]) -> str:
  call, share = _others(group)
  text = f'{group.says("wait")} for {call} {share:.0%} of the time'
  server = next((g for g in found if g.name == _kind(call.rpartition('.')[0])), None)
  if server is None or server.time.computing < BUSY:
    return f'{text}: see what that node waits for in turn'
  return (
    f'{text}, and {server.says("compute")} {server.time.computing:.0%} of it: '
    'make it faster, or share its work among several'
  )


def _machine(status: Status, found: Sequence[Group], full: bool) -> str:
  if not full:
    return ''
  busiest = max(found, key=lambda group: group.time.computing)
  return (
    f'the machine is full: its {status.cores} cores are {busy_share(status):.0%} busy, '
    f'and {busiest.says("compute")} {busiest.time.computing:.0%} of the time: '
    'add cores or hosts'
  )


def _busiest(found: Sequence[Group]) -> str:
  busiest = max(found, key=lambda group: group.time.computing)
  share = busiest.time.computing
  if share < BUSY:
    return ''
  text = f'{busiest.says("compute")} {share:.0%} of the time'
  if busiest.waits_for('sample') or busiest.name == 'learner':
    return f'{text}: give it a faster device, or a smaller network'
  if _writes(busiest):
    return f'{text}: add actors, or make the environment faster'
  return f'{text}: make it faster, or share its work among several'


def _kind(name: str) -> str:
  """'actor' of 'actor/3', 'learner' of 'learner.1'."""
  return re.sub(r'\.\d+$', '', name.rpartition('/')[0] or name)


def _mean(members: Sequence[Shares]) -> Shares:
  count, waiting = len(members), Counter[str]()
  for member in members:
    for call, share in member.waiting.items():
      peer, _, method = call.rpartition('.')
      waiting[f'{_kind(peer)}.{method}'] += share / count  # type: ignore[assignment]
  return Shares(
    sum(member.computing for member in members) / count,
    sum(member.sending for member in members) / count,
    dict(waiting),
    sum(member.idle for member in members) / count,
  )


def _writes(group: Group) -> bool:
  return group.waits_for(*_WRITING) > 0


def _acts(group: Group) -> bool:
  return _writes(group) or group.waits_for('act') > 0 or group.name == 'actor'


def _callee(group: Group, found: Sequence[Group], *methods: str) -> Group | None:
  """Whom it waits for when it calls these methods."""
  for call in group.time.waiting:
    peer, _, method = call.rpartition('.')
    if method in methods:
      return next((other for other in found if other.name == peer), None)
  return None


def _others(group: Group) -> tuple[str, float]:
  """The call that it waits for most, of those that no other rule is about."""
  known = ('sample', *_WRITING, 'act', 'parameters')
  calls = {
    call: share
    for call, share in group.time.waiting.items()
    if call.rpartition('.')[2] not in known
  }
  return max(calls.items(), key=lambda each: each[1], default=('', 0.0))
