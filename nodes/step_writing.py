"""Blocks of time steps as an actor appends them: of a stack the newest frame alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
import numpy.typing as npt

from callsheet.agents import step_tables
from callsheet.agents.base import Steps

Array = npt.NDArray[Any]


class StepWriter:
  """Keeps the time steps of B environments until they are taken.

  Args:
    steps: what the table is fed with.
  """

  def __init__(self, steps: Steps) -> None:
    self._steps = steps
    self._columns = step_tables.step_columns(steps)
    self._rows: list[dict[str, Array]] = []
    # The newest observations of the last block, all frames of them.
    self._before: Array | None = None

  def observe(
    self,
    before: dm_env.TimeStep,
    action: Array,
    after: dm_env.TimeStep,
    extras: object = (),
  ) -> None:
    """Adds one step of all environments.

    Args:
      before: what the action was chosen on, `[B, ...]`; only at the very first call it
        is something new.
      action: `[B, ...]`.
      after: what the environments answered; its arrays must not change afterwards.
      extras: what the policy gave along with the action: a mapping that has the table's
        extras, `[B, ...]` each.

    Raises:
      ValueError: an extra is missing.
    """
    given = extras if isinstance(extras, Mapping) else {}
    if missing := sorted(set(self._steps.extras).difference(given)):
      raise ValueError(
        f'table {self._steps.writes.table!r}: the policy has to give the extras '
        f'{missing} along with its action: return action, carry, '
        f'{{{missing[0]!r}: ...}}; it gave {sorted(map(str, given))}'
      )
    led = {'action': np.asarray(action)}
    led |= {name: np.asarray(given[name]) for name in self._steps.extras}
    if self._before is None and not self._rows:
      nothing = {name: np.zeros_like(value) for name, value in led.items()}
      self._rows.append(_row(before, nothing))
    self._rows.append(_row(after, led))

  def take(self) -> dict[str, Array] | None:
    """The steps since the last call, `[T, B, ...]` each; None if there is none.

    Raises:
      ValueError: the observations are no stacks of frames.
    """
    if not self._rows:
      return None
    block = {
      name: np.stack([row[name] for row in self._rows])
      for name in self._columns
      if name != 'observation'
    }
    observations = [row['observation'] for row in self._rows]
    if self._steps.writes.num_stacked > 1:
      self._check(observations, block['step_type'])
    frames = [self._frames(o, -1) for o in observations]
    block['observation'] = np.stack(frames)
    self._before, self._rows = observations[-1], []
    return block

  def _check(self, observations: list[Array], step_type: Array) -> None:
    """One step of the block, and each first step of an episode."""
    num_stacked = self._steps.writes.num_stacked
    for time, environment in zip(*np.nonzero(step_type == 0), strict=True):
      first = observations[time][environment][None]
      newest = self._frames(first, -1)
      for age in range(num_stacked - 1):
        if not np.array_equal(self._frames(first, age), newest, equal_nan=True):
          self._refuse('does not repeat its one frame where an episode begins')
    before = self._before if self._before is not None else observations[0]
    after, kinds = observations[0], step_type[0]
    if self._before is None and len(observations) > 1:
      after, kinds = observations[1], step_type[1]
    going = kinds != 0
    if after is before or not going.any():
      return
    for age in range(num_stacked - 1):
      now, then = self._frames(after, age), self._frames(before, age + 1)
      if not np.array_equal(now[going], then[going], equal_nan=True):
        self._refuse('does not go on from the one before')

  def _frames(self, observation: Array, index: int) -> Array:
    """One frame of each stack `[B, ...]`, the oldest by 0."""
    writes = self._steps.writes
    if writes.num_stacked == 1:
      return observation
    axis = 1 + writes.stack_axis % (observation.ndim - 1)
    width = observation.shape[axis] // writes.num_stacked
    at = index % writes.num_stacked * width
    return observation[(slice(None),) * axis + (slice(at, at + width),)]

  def _refuse(self, what: str) -> None:
    writes, shape = self._steps.writes, self._steps.observation.shape
    raise ValueError(
      f'table {writes.table!r}: an observation {list(shape)} is no stack of '
      f'{writes.num_stacked} frames along axis {writes.stack_axis}, the newest last: '
      f'it {what}; declare {type(writes).__name__}(..., num_stacked=1), or let the '
      f'environment stack its frames so'
    )


def _row(time_step: dm_env.TimeStep, led: dict[str, Array]) -> dict[str, Array]:
  return {
    'step_type': np.asarray(time_step.step_type),
    'reward': np.asarray(time_step.reward),
    'discount': np.asarray(time_step.discount),
    'observation': np.asarray(time_step.observation),
    **led,
  }
