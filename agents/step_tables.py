"""Tables that are fed with time steps: what they take, and the columns that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from dm_env import specs

from callsheet.agents.base import EnvironmentSpec, NStep, Sequences, Steps, Table

_NUMBER = specs.Array((), np.float32)
_STEP_TYPE = specs.Array((), np.int32)
# Names of the time steps themselves, of items, and of what a replay keeps with them.
_TAKEN = frozenset(
  [
    'observation',
    'action',
    'reward',
    'discount',
    'step_type',
    'next_observation',
    'mask',
    'start',
    'stop',
    'length',
    'previous',
    'position',
    'row',
  ]
)
_MOST_STACKED = 128


def step_table(
  spec: EnvironmentSpec,
  writes: NStep | Sequences,
  max_size: int,
  *,
  extras: Mapping[str, specs.Array] = MappingProxyType({}),
  max_steps: int | None = None,
  **options: Any,
) -> Table:
  """A table that is fed with time steps, `Replay.append`, and shares them.

  Args:
    spec: of one environment.
    writes: its items; the table is called `writes.table`.
    max_size: items held.
    extras: see `Steps`.
    max_steps: see `Steps`.
    **options: the other fields of `Table`.
  """
  steps = Steps(writes, spec.observation, spec.action, dict(extras), max_steps)
  return Table(writes.table, item_columns(steps), max_size, steps=steps, **options)


def transition_table(
  spec: EnvironmentSpec, writes: NStep, max_size: int, **options: Any
) -> Table:
  """The table of an agent that learns from transitions, fed as it is faster.

  Images share time steps, which saves memory; a vector is drawn faster where it is
  beside the rest of its transition.

  Args:
    spec: of one environment.
    writes: its items; the table is called `writes.table`.
    max_size: items held.
    **options: the other fields of `Table`.
  """
  table = step_table(spec, writes, max_size, **options)
  if len(spec.observation.shape) > 1:
    return table
  return dataclasses.replace(table, steps=None)


def item_columns(steps: Steps) -> dict[str, specs.Array]:
  """The columns of one item, as `NStep` and `Sequences` say, and the extras."""
  writes = steps.writes
  if isinstance(writes, NStep):
    # Extras are those of the item's first action.
    return {
      'observation': steps.observation,
      'action': steps.action,
      'reward': _NUMBER,
      'discount': _NUMBER,
      'next_observation': steps.observation,
      **steps.extras,
    }
  length = writes.sequence_length
  columns = {
    'observation': _repeated(steps.observation, length + 1),
    'step_type': _repeated(_STEP_TYPE, length + 1),
    'action': _repeated(steps.action, length),
    'reward': _repeated(_NUMBER, length),
    'discount': _repeated(_NUMBER, length),
    'mask': specs.Array((length,), np.bool_),
  }
  extras = {name: _repeated(extra, length) for name, extra in steps.extras.items()}
  return {**columns, **extras}


def step_columns(steps: Steps) -> dict[str, specs.Array]:
  """The columns of one time step, as `Replay.append` takes them."""
  return {
    'step_type': _STEP_TYPE,
    'reward': _NUMBER,
    'discount': _NUMBER,
    'observation': frame(steps),
    'action': steps.action,
    **steps.extras,
  }


def frame(steps: Steps) -> specs.Array:
  """One of the frames that an observation consists of; it keeps the axis."""
  if steps.writes.num_stacked == 1:
    return steps.observation
  shape = list(steps.observation.shape)
  shape[steps.writes.stack_axis] //= steps.writes.num_stacked
  return specs.Array(tuple(shape), steps.observation.dtype)


def span(writes: NStep | Sequences) -> int:
  """The most steps that one item spans."""
  return writes.n_step if isinstance(writes, NStep) else writes.sequence_length


def complaints(table: Table) -> Iterable[str]:
  """Why the time steps of a table could never be what it is fed with."""
  steps = table.steps
  if steps is None:
    return
  writes = steps.writes
  if writes.table != table.name:
    yield f'it is fed with what is written to {writes.table!r}'
  if span(writes) < 1:
    yield f'its items have to span at least 1 step, came {span(writes)}'
    return
  if isinstance(writes, Sequences) and not 1 <= writes.period <= span(writes):
    yield (
      f'period has to be from 1 to sequence_length ({span(writes)}), '
      f'came {writes.period}'
    )
  shape, axis = steps.observation.shape, writes.stack_axis
  if not 1 <= writes.num_stacked <= _MOST_STACKED:
    yield f'num_stacked has to be from 1 to {_MOST_STACKED}, came {writes.num_stacked}'
  elif writes.num_stacked > 1 and not (
    -len(shape) <= axis < len(shape) and shape[axis] % writes.num_stacked == 0
  ):
    yield (
      f'observations {list(shape)} are no stack of {writes.num_stacked} frames along '
      f'axis {axis}: give num_stacked and stack_axis as the environment stacks them'
    )
    return
  if clash := sorted(_TAKEN.intersection(steps.extras)):
    yield f'its extras need other names: {clash} mean something else here'
    return
  if _shapes(table.columns) != _shapes(item_columns(steps)):
    yield (
      f'its columns {_shapes(table.columns)} are not those of its time steps, '
      f'{_shapes(item_columns(steps))}; step_table(spec, writes, max_size) makes them'
    )
  if steps.max_steps is not None and steps.max_steps < fewest_steps(table):
    yield (
      f'max_steps {steps.max_steps} could hold fewer than min_size = '
      f'{table.limiter.min_size} items, so that no sample would ever pass; it has to '
      f'be at least {fewest_steps(table)}'
    )


def fewest_steps(table: Table) -> int:
  """The time steps that `min_size` items may take, however short episodes are."""
  assert table.steps is not None
  return table.limiter.min_size * _most_steps(table.steps.writes) + in_progress(
    table.steps.writes
  )


def max_steps(table: Table) -> int:
  """The time steps that a table holds."""
  steps = table.steps
  assert steps is not None
  if steps.max_steps is not None:
    return steps.max_steps
  # The ends of episodes take a step each, and what is not yet an item takes some more.
  items = _item_steps(table)
  return max(items + items // 32, fewest_steps(table)) + 1024


def with_room(tables: Iterable[Table], num_environments: int) -> tuple[Table, ...]:
  """Tables that lose no step before its items have been complete and drawn.

  Those that say how many steps they hold are left as they are.

  Args:
    tables: of one agent.
    num_environments: of all its actors.
  """
  return tuple(_with_room(table, num_environments) for table in tables)


def _with_room(table: Table, num_environments: int) -> Table:
  steps = table.steps
  if steps is None or steps.max_steps is not None:
    return table
  # Twice over what all have begun: some actors are slower than others.
  begun = num_environments * in_progress(steps.writes)
  most = max(
    max_steps(table), fewest_steps(table) + begun, _item_steps(table) + 2 * begun
  )
  return replace(table, steps=replace(steps, max_steps=most))


def in_progress(writes: NStep | Sequences) -> int:
  """The time steps of one environment that later items may still show."""
  return span(writes) + writes.num_stacked


def _item_steps(table: Table) -> int:
  """The time steps that all items show while episodes are long."""
  assert table.steps is not None
  writes = table.steps.writes
  return table.max_size * (1 if isinstance(writes, NStep) else writes.period)


def _most_steps(writes: NStep | Sequences) -> int:
  """The most that are held for one more item: its episode may be a short one."""
  if isinstance(writes, NStep):
    return 2
  return writes.period if writes.cross_episodes else writes.sequence_length + 1


def _repeated(spec: specs.Array, length: int) -> specs.Array:
  return specs.Array((length, *spec.shape), spec.dtype)


def _shapes(columns: Mapping[str, specs.Array]) -> dict[str, str]:
  return {
    name: f'{np.dtype(spec.dtype)} {list(spec.shape)}' for name, spec in columns.items()
  }
