"""What a node is waiting for, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callsheet.launch.observe.document import Shares, Waits
from callsheet.launch.standing import Standing

# A share of the time from which on a wait is worth a word, and seconds without an
# answer from which on a node is silent.
WORTH = 0.2
SILENT = 3.0


def waits(
  standing: Standing,
  silent: float | None,
  recent: Shares,
  slowest: tuple[str, float],
  tables: Mapping[str, Any],
) -> Waits:
  """What a node is waiting for.

  Args:
    standing: how it stands.
    silent: seconds since it answered; None if it never has.
    recent: how its time was spent of late.
    slowest: the open call that it has waited for longest, and its seconds.
    tables: what its service says of itself.
  """
  if standing.state == 'starting':
    return Waits('start', 'its constructor to return')
  if standing.state in ('waiting', 'restarting'):
    return Waits('start', 'its start')
  if not standing.up:
    return Waits('end')
  if silent is None or silent >= SILENT:
    for_how_long = ' yet' if silent is None else f' for {silent:.0f} s'
    return Waits('answer', f'no answer{for_how_long}', seconds=silent or 0.0)
  if held := _held(tables):
    return held
  call, share = max(recent.waiting.items(), key=lambda each: each[1], default=('', 0.0))
  if share >= WORTH and share >= recent.computing:
    peer, _, method = call.rpartition('.')
    seconds = slowest[1] if slowest[0] == call else 0.0
    since = f', {seconds:.1f} s by now' if seconds >= 1 else ''
    return Waits(
      'call', f'{call} {share:.0%} of the time{since}', peer, method, seconds, share
    )
  if standing.state == 'finished':
    return Waits('end', 'the end: its loop has returned')
  if recent.computing >= WORTH:
    share = recent.computing
    return Waits('nothing', f'nothing: computes {share:.0%} of the time', share=share)
  if recent.known:
    return Waits('callers', 'calls, or time to pass', share=recent.idle)
  return Waits()


def _held(tables: Mapping[str, Any]) -> Waits | None:
  """The table that holds somebody longest by its limiter."""
  longest: Waits | None = None
  for name, table in tables.items():
    if not isinstance(table, Mapping):
      continue
    for side, needs in (('samplers', 'inserts'), ('writers', 'samples')):
      seconds = table.get(f'{side}_blocked_seconds') or 0.0
      callers = table.get(f'waiting_{side}') or 0
      if callers and (longest is None or seconds > longest.seconds):
        credit = table.get('credit')
        who = side if callers > 1 else side[:-1]
        left = 'unbounded' if credit is None else f'{credit:.0f}'
        longest = Waits(
          'limiter',
          f'{needs} in {name}: {callers} {who} blocked, the first for {seconds:.1f} s '
          f'(credit {left}, {table.get("state", "")})',
          seconds=seconds,
        )
  return longest
