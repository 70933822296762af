"""What an actor writes: n-step transitions, made of columns and not one by one."""

from __future__ import annotations

from typing import Any, NamedTuple

import dm_env
import numpy as np
import numpy.typing as npt

from callsheet.agents.base import NStep

Array = npt.NDArray[Any]


class NStepWindow(NamedTuple):
  """For every step of a window, the n-step transition that starts there; all `[T, B]`.

  Attributes:
    reward: the discounted sum of up to n rewards, float32.
    discount: what multiplies the value of the observation it ends with, float32.
    length: the steps it spans, int64; 0 where a step leads into a new episode.
    complete: whether it spans n steps or has met its episode's end.
  """

  reward: Array
  discount: Array
  length: Array
  complete: Array


def n_step_transitions(
  step_type: Array,
  reward: Array,
  discount: Array,
  n_step: int,
  gamma: float,
) -> NStepWindow:
  """The n-step returns of every step in a window of B environments.

  With d the environment's own discount (0 on termination, 1 on truncation), a
  transition of m steps from t has the reward
  `sum_{k<m} gamma^k d_{t+1} ... d_{t+k} r_{t+k+1}` and the discount
  `gamma^m d_{t+1} ... d_{t+m}`. None reaches past a LAST step.

  Args:
    step_type: `[T + 1, B]`, of all time steps of the window, as in `dm_env.StepType`.
    reward: `[T, B]`, of the time steps after the first.
    discount: `[T, B]`, of the time steps after the first.
    n_step: the longest span, at least 1.
    gamma: the agent's discount.
  """
  steps = reward.shape[0]
  last = step_type == dm_env.StepType.LAST
  going = ~last[:-1]
  total = np.zeros(reward.shape, np.float32)
  factor = np.ones(reward.shape, np.float32)
  length = np.zeros(reward.shape, np.int64)
  for k in range(min(n_step, steps)):
    # Row t is moved on by the step t + k; the last k rows have none in this window.
    now = going[: steps - k]
    total[: steps - k] += np.where(now, factor[: steps - k] * reward[k:], 0)
    factor[: steps - k] *= np.where(now, np.float32(gamma) * discount[k:], 1)
    length[: steps - k] += now
    now &= ~last[k + 1 :]
  complete = (length > 0) & (~going | (length == n_step))
  return NStepWindow(total, factor, length, complete)


class NStepWriter:
  """Turns the time steps of B environments into n-step transitions.

  Call `observe` once a batched step and `take` whenever it suits, best after several
  steps; between two calls of `take` all time steps are kept.
  """

  def __init__(self, writes: NStep) -> None:
    self._writes = writes
    self._start()

  def observe(
    self, before: dm_env.TimeStep, action: Array, after: dm_env.TimeStep
  ) -> None:
    """Adds one step of all environments.

    Args:
      before: what the action was chosen on, `[B, ...]`: the very `after` of the last
        call, unless this is the first one or `take(end=True)` came in between.
      action: `[B, ...]`; ignored where `before` is LAST.
      after: what the environments answered; its arrays must not change afterwards.

    Raises:
      ValueError: `before` is not the time step that the last call ended with.
    """
    if not self._time_steps:
      self._time_steps.append(before)
      self._taken.append(np.zeros(np.shape(before.step_type), bool))
    elif before is not self._time_steps[-1]:
      raise ValueError(
        'NStepWriter.observe(before, action, after): before is not the time step that '
        'the last call ended with; after a reset, take(end=True) first'
      )
    self._time_steps.append(after)
    self._actions.append(np.asarray(action))
    self._taken.append(np.zeros(np.shape(after.step_type), bool))

  def take(self, *, end: bool = False) -> dict[str, Array] | None:
    """The transitions complete since the last call, oldest first, or None.

    Args:
      end: also those still short of n steps, which then bootstrap from the newest
        observation; the next `observe` starts afresh.

    Returns:
      `[N, ...]` each: `observation`, `action`, `reward`, `discount`,
      `next_observation`.
    """
    if not self._actions:
      if end:
        self._start()
      return None
    writes = self._writes
    window = n_step_transitions(
      np.stack([step.step_type for step in self._time_steps]),
      np.stack([step.reward for step in self._time_steps[1:]]),
      np.stack([step.discount for step in self._time_steps[1:]]),
      writes.n_step,
      writes.discount,
    )
    wanted = window.length > 0 if end else window.complete
    time, environment = np.nonzero(wanted & ~np.stack(self._taken[:-1]))
    columns = None
    if time.size:
      observation = np.stack([step.observation for step in self._time_steps])
      until = time + window.length[time, environment]
      columns = {
        'observation': observation[time, environment],
        'action': np.stack(self._actions)[time, environment],
        'reward': window.reward[time, environment],
        'discount': window.discount[time, environment],
        'next_observation': observation[until, environment],
      }
    if end:
      self._start()
    else:
      self._keep(wanted)
    return columns

  def _start(self) -> None:
    self._time_steps: list[dm_env.TimeStep] = []
    self._actions: list[Array] = []
    self._taken: list[Array] = []

  def _keep(self, taken: Array) -> None:
    # Every start but the newest n - 1 has been taken by now.
    keep = min(self._writes.n_step - 1, len(self._actions))
    first = len(self._actions) - keep
    self._time_steps = self._time_steps[first:]
    self._actions = self._actions[first:]
    self._taken = [*taken[first:], self._taken[-1]]
