"""Items out of single time steps: each shows rows of a store, which it refers to.

A row knows the one before it in its environment, so that the rows of a stack or of a
sequence are a short walk, for all items at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from callsheet import results
from callsheet.agents.base import NStep, Sequences, Steps
from callsheet.agents.step_tables import frame, item_columns

Array = npt.NDArray[Any]

_PIECE_BYTES = 2**18


def new_columns(steps: Steps, count: int) -> dict[str, Array]:
  """Room for N = `count` items, to be filled by `fill`.

  Stacks lie frame behind frame in memory, whatever their axis: to gather them is to
  copy, at its full speed, where laying bytes side by side would take many times as
  long. Only the strides show it.
  """
  shapes, axes = {}, {}
  for name, spec in item_columns(steps).items():
    shape = (count, *spec.shape)
    order = list(range(len(shape)))
    if name in ('observation', 'next_observation') and _apart(steps):
      lead = len(shape) - len(steps.observation.shape)
      stacked = lead + steps.writes.stack_axis % len(steps.observation.shape)
      order.insert(lead, order.pop(stacked))
    shapes[name] = tuple(shape[i] for i in order), np.dtype(spec.dtype)
    axes[name] = np.argsort(order)
  return {
    name: memory.transpose(axes[name]) for name, memory in results.empty(shapes).items()
  }


def fill(
  steps: Steps,
  rows: Mapping[str, Array],
  items: Mapping[str, Array],
  into: Mapping[str, Array],
  part: slice,
) -> None:
  """Fills the N rows of `part` with items.

  Args:
    steps: the declaration.
    rows: the store, `[R, ...]` each: the columns of a time step, `previous` (the row
      before it in its environment) and `position` (steps since the episode began, up
      to the number of stacked frames at least).
    items: `[N]` each, rows: `start` and `stop`; for n-step transitions all columns but
      the observations, too.
    into: from `new_columns`.
    part: start and stop.
  """
  if isinstance(steps.writes, NStep):
    for name, column in into.items():
      if name == 'observation':
        _gather_observations(steps, rows, items['start'], column[part])
      elif name == 'next_observation':
        _gather_observations(steps, rows, items['stop'], column[part])
      else:
        column[part] = items[name]
    return
  shown, length = _sequence_rows(steps.writes, rows, items)
  _gather_observations(steps, rows, shown.ravel(), _flat(into['observation'][part]))
  step_type = rows['step_type'][shown]
  into['step_type'][part] = step_type
  mask = np.arange(1, shown.shape[1]) <= length[:, None]
  if steps.writes.cross_episodes:
    mask &= step_type[:, 1:] != 0
  into['mask'][part] = mask
  for name in ('action', 'reward', 'discount', *steps.extras):
    column = into[name][part]
    column[...] = rows[name][shown[:, 1:]]
    column[~mask] = 0


def oldest(steps: Steps, rows: Mapping[str, Array], start: Array) -> Array:
  """The oldest row that items with these `[N]` first rows show."""
  stacked: Array = _stack_rows(rows, start, steps.writes.num_stacked)[:, 0]
  return stacked


def sequence_rows(
  steps: Steps, rows: Mapping[str, Array], items: Mapping[str, Array]
) -> Array:
  """The rows `[N, L + 1]` that sequences show; see `fill`."""
  assert isinstance(steps.writes, Sequences)
  return _sequence_rows(steps.writes, rows, items)[0]


def _sequence_rows(
  writes: Sequences, rows: Mapping[str, Array], items: Mapping[str, Array]
) -> tuple[Array, Array]:
  """The rows that sequences show, `[N, L + 1]`, and their lengths `[N]`."""
  at, length = items['stop'], items['length'].astype(np.int64)
  shown = np.empty((writes.sequence_length + 1, len(at)), np.int64)
  previous = rows['previous']
  for t in range(writes.sequence_length, -1, -1):
    shown[t] = at
    if t:
      at = np.where(t <= length, previous[at], at)
  return np.ascontiguousarray(shown.T), length


def _stack_rows(rows: Mapping[str, Array], newest: Array, num_stacked: int) -> Array:
  """The rows of the frames of stacks `[N, S]`, by their newest ones."""
  stacked = np.empty((len(newest), num_stacked), np.int64)
  stacked[:, -1] = newest
  if num_stacked > 1:
    previous, position, at = rows['previous'], rows['position'][newest], newest
    for age in range(1, num_stacked):
      at = np.where(position >= age, previous[at], at)
      stacked[:, -1 - age] = at
  return stacked


def _gather_observations(
  steps: Steps, rows: Mapping[str, Array], newest: Array, out: Array
) -> None:
  """Copies the observations at `[N]` rows to `[N, ...]`."""
  frames, stacked = rows['observation'], steps.writes.num_stacked
  if stacked == 1:
    _take(frames, newest, out)
    return
  which = _stack_rows(rows, newest, stacked)
  axis = 1 + steps.writes.stack_axis % len(steps.observation.shape)
  if _apart(steps):
    width = math.prod(frames.shape[1:])
    memory = np.moveaxis(out, axis, 1).reshape(len(newest) * stacked, width)
    _take(frames.reshape(len(frames), width), which.ravel(), memory)
    return
  # Channels of several frames beside each other: in pieces that stay in the cache.
  channels = frame(steps).shape[axis - 1]
  split = out.reshape(*out.shape[:axis], stacked, channels, *out.shape[axis + 1 :])
  piece = max(1, _PIECE_BYTES // max(1, out[:1].nbytes))
  for start in range(0, len(newest), piece):
    taken = frames[which[start : start + piece]]
    split[start : start + piece] = np.moveaxis(taken, 1, axis)


def _take(source: Array, rows: Array, out: Array) -> None:
  if source.flags.c_contiguous and out.flags.c_contiguous:
    # With mode='raise' numpy would copy once more.
    source.take(rows, axis=0, out=out, mode='clip')
  else:
    out[...] = source[rows]


def _apart(steps: Steps) -> bool:
  """Whether the frames of a stack can lie behind each other."""
  axis, observation = steps.writes.stack_axis, steps.observation.shape
  if steps.writes.num_stacked == 1:
    return False
  return observation[axis] == steps.writes.num_stacked or axis % len(observation) == 0


def _flat(column: Array) -> Array:
  """`[N, T, ...]` as `[N * T, ...]`, without a copy."""
  return column.reshape(-1, *column.shape[2:])
