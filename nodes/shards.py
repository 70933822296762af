"""The tables of one replay, shared out among several, and their statistics as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from callsheet.agents.base import Limiter, Table
from callsheet.errors import UsageError
from callsheet.nodes.limiting import LimiterState, smallest_error_buffer
from callsheet.nodes.table_statistics import TableStatistics


def shares(tables: Sequence[Table], number: int) -> list[tuple[Table, ...]]:
  """The tables of each of so many shards.

  Sizes are split so that they add up to what was declared (but no shard's `min_size` is
  below 1), the slack of a limiter as well, in proportion to its shard;
  `samples_per_insert` is the same everywhere.

  Raises:
    UsageError: there is no shard, or a table can't be split so far.
  """
  if number < 1:
    raise UsageError(f'a replay of {number} shards, expected at least 1')
  return [tuple(_share(table, number, i) for table in tables) for i in range(number)]


def _share(table: Table, number: int, index: int) -> Table:
  limiter, steps = table.limiter, table.steps
  if table.max_size < number:
    raise UsageError(
      f'table {table.name!r} has max_size {table.max_size}, too few for {number} '
      f'shards: each holds at least one item'
    )
  ratio, buffer = limiter.samples_per_insert, limiter.error_buffer
  part = _part(table.max_size, number, index) / table.max_size
  if isinstance(buffer, tuple):
    buffer = buffer[0] * part, buffer[1] * part
  elif buffer is not None and ratio is not None:
    if buffer / number < smallest_error_buffer(ratio):
      raise UsageError(
        f'table {table.name!r}: error_buffer {buffer:g} can not be shared by {number} '
        f'shards, of which each needs at least {smallest_error_buffer(ratio):g}; '
        f'declare at least {number * smallest_error_buffer(ratio):g}'
      )
    buffer /= number
  if steps is not None and steps.max_steps is not None:
    steps = dataclasses.replace(steps, max_steps=_part(steps.max_steps, number, index))
  return dataclasses.replace(
    table,
    max_size=_part(table.max_size, number, index),
    limiter=Limiter(max(1, _part(limiter.min_size, number, index)), ratio, buffer),
    steps=steps,
  )


def _part(whole: int, number: int, index: int) -> int:
  return (whole + number - 1 - index) // number


def together(shards: Sequence[TableStatistics]) -> TableStatistics:
  """The statistics of one table, from those of its shards."""
  inserted = sum(one.inserted for one in shards)
  sampled = sum(one.sampled for one in shards)
  drawn = [one for one in shards if one.sampled and not math.isnan(one.sample_age)]
  ages = sum(one.sample_age * one.sampled for one in drawn)
  return TableStatistics(
    size=sum(one.size for one in shards),
    max_size=sum(one.max_size for one in shards),
    inserted=inserted,
    sampled=sampled,
    samples_per_insert=sampled / inserted if inserted else math.nan,
    credit=sum(one.credit for one in shards),
    state=_state([one.state for one in shards]),
    mass=sum(one.mass for one in shards),
    bytes=sum(one.bytes for one in shards),
    inserts_per_second=sum(one.inserts_per_second for one in shards),
    samples_per_second=sum(one.samples_per_second for one in shards),
    waiting_writers=sum(one.waiting_writers for one in shards),
    writers_blocked_seconds=max(one.writers_blocked_seconds for one in shards),
    waiting_samplers=sum(one.waiting_samplers for one in shards),
    samplers_blocked_seconds=max(one.samplers_blocked_seconds for one in shards),
    sample_age=ages / sum(one.sampled for one in drawn) if drawn else math.nan,
    oldest_sample_age=max((one.oldest_sample_age for one in drawn), default=math.nan),
  )


def _state(states: Sequence[LimiterState]) -> LimiterState:
  """Who would have to wait: a learner that no shard lets pass, or else any writer."""
  if all(state in ('filling', 'learner waits') for state in states):
    return 'filling' if 'filling' in states else 'learner waits'
  return 'actors wait' if 'actors wait' in states else 'open'
