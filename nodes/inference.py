"""The inference server: acts for many actors at once, on its own device."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent
from callsheet.calls import blocking, retried
from callsheet.errors import UsageError
from callsheet.nodes.acting import Acted
from callsheet.nodes.batched_policy import Asked, BatchedPolicy
from callsheet.nodes.batching import Batching, Request, refuse
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.variables import ParameterSource, VariableClient


class InferenceStatistics(NamedTuple):
  """What a server has done since its start.

  Attributes:
    batches: dispatches of the policy.
    requests: answered; one is one actor's.
    environments: answered for, padding not counted.
    seconds_waited: of all requests together, from their arrival to their dispatch.
  """

  batches: int = 0
  requests: int = 0
  environments: int = 0
  seconds_waited: float = 0.0

  @property
  def mean_size(self) -> float:
    """Environments in a batch."""
    return self.environments / max(1, self.batches)

  @property
  def mean_wait(self) -> float:
    """Seconds that a request waited for its dispatch."""
    return self.seconds_waited / max(1, self.requests)

  def since(self, before: InferenceStatistics) -> InferenceStatistics:
    """What was done between the two."""
    return InferenceStatistics(
      self.batches - before.batches,
      self.requests - before.requests,
      self.environments - before.environments,
      self.seconds_waited - before.seconds_waited,
    )


class InferenceServer:
  """Runs the policy for the actors that ask, with parameters that it pulls.

  Requests that wait are answered together, by one dispatch. The policy's carry stays
  here, by actor. Whether an answer is computed alone or in a batch makes no
  difference but to what is random.

  Args:
    agent: whose policy it is.
    learner: gives the parameters.
    recorder: gets the mean `batch_size` (environments), the mean `wait` (seconds) of a
      request for its dispatch, and the age of the parameters.
    seed: of the policy; also tells it from its fellows.
    max_batch_size: environments in one dispatch. As many as its actors have in all is
      best: then the last to ask waits for nobody.
    max_wait: seconds that a request waits for others to join it.
    update_period: seconds between two pulls of the parameters.
    report_period: seconds between two reports to the recorder.

  Raises:
    UsageError: `max_batch_size` is below 1 or `max_wait` no number of at least 0, or
      the agent's carry can't be told apart by environment.
  """

  def __init__(
    self,
    agent: Agent,
    learner: ParameterSource,
    recorder: Recorder,
    *,
    seed: int = 0,
    max_batch_size: int = 256,
    max_wait: float = 0.002,
    update_period: float = 0.1,
    report_period: float = 0.5,
  ) -> None:
    if max_batch_size < 1:
      raise UsageError(f'max_batch_size is {max_batch_size}, expected at least 1')
    if not max_wait >= 0:
      raise UsageError(f'max_wait is {max_wait}, expected seconds of at least 0')
    self._agent, self._recorder, self._seed = agent, recorder, seed
    self._max_batch_size, self._report_period = max_batch_size, report_period
    self._policy = BatchedPolicy(agent, seed, max_batch_size)
    self._variables = VariableClient(learner, update_period)
    self._batching: Batching[Acted] = Batching(max_batch_size, max_wait)
    self._statistics = self._reported = InferenceStatistics()
    self._reported_at = time.monotonic()

  @blocking
  def act(self, actor: int, observation: NDArray[Any], first: NDArray[Any]) -> Acted:
    """Acts for one actor, once its batch is complete.

    Args:
      actor: tells it from all others. One that is not known, since it or this server
        is new, or that comes with another B, begins with the initial carry.
      observation: `[B, ...]`.
      first: `[B]` bool, where an episode begins: there the carry does, too.

    Raises:
      UsageError: the observation isn't the agent's, or has more environments than a
        batch, or `first` has not as many.
      CallCancelled: the server is stopping.
    """
    observation, first = self._checked(np.asarray(observation)), np.asarray(first)
    if first.dtype != np.bool_ or first.shape != observation.shape[:1]:
      raise UsageError(
        f'first is {first.dtype} {list(first.shape)}, expected bool '
        f'[{len(observation)}], whether an episode begins in each environment'
      )
    return self._batching.put(Request(actor, observation, first)).result()

  def statistics(self) -> InferenceStatistics:
    """What was done so far."""
    return self._statistics

  def run(self, stop: threading.Event) -> None:
    """Answers until the stop; who still waits then gets a CallCancelled.

    Raises:
      UsageError: what the policy gives can't be told apart by environment.
      Exception: whatever the policy, the learner or the recorder raised.
    """
    why = 'the inference server is stopping'
    try:
      self._policy.compile(stop)
      while batch := self._batching.take(stop):
        self._answer(batch)
        if time.monotonic() - self._reported_at >= self._report_period:
          self._report()
      self._report()
    except BaseException as error:
      why = f'the inference server has failed: {type(error).__name__}: {error}'
      raise
    finally:
      self._batching.close(why)

  def close(self) -> None:
    """Ends those who still wait with a CallCancelled."""
    self._batching.close('the inference server is stopping')

  def _checked(self, observation: NDArray[Any]) -> NDArray[Any]:
    spec = self._agent.spec.observation
    if (
      observation.ndim != 1 + len(spec.shape)
      or observation.shape[1:] != spec.shape
      or not len(observation)
      or not np.can_cast(observation.dtype, spec.dtype, 'same_kind')
    ):
      expected = ', '.join(['B', *map(str, spec.shape)])
      raise UsageError(
        f'the observation is {observation.dtype} {list(observation.shape)}, expected '
        f'{np.dtype(spec.dtype)} [{expected}] with B at least 1'
      )
    if len(observation) > self._max_batch_size:
      raise UsageError(
        f'{len(observation)} environments at once are more than a batch of the '
        f'inference server has; give it a max_batch_size above {self._max_batch_size}'
      )
    return observation

  def _answer(self, batch: list[Request[Acted]]) -> None:
    now = time.monotonic()
    try:
      params = self._variables.params()
      asked = [Asked(each.actor, each.observation, each.first) for each in batch]
      given = self._policy.act(params, asked)
    except BaseException as error:
      refuse(batch, f'the inference server has failed: {type(error).__name__}: {error}')
      raise
    self._count(batch, now)
    age = self._variables.age()
    for request, (action, extras) in zip(batch, given, strict=True):
      request.answer.set_result(Acted(action, extras, age))

  def _count(self, batch: Sequence[Request[Acted]], now: float) -> None:
    so_far = self._statistics
    self._statistics = InferenceStatistics(
      so_far.batches + 1,
      so_far.requests + len(batch),
      so_far.environments + sum(len(request.observation) for request in batch),
      so_far.seconds_waited + sum(now - request.at for request in batch),
    )

  def _report(self) -> None:
    done = self._statistics.since(self._reported)
    self._reported, self._reported_at = self._statistics, time.monotonic()
    if not done.batches:
      return
    retried(self._recorder.record)(
      'inference',
      {
        'batch_size': done.mean_size,
        'wait': done.mean_wait,
        'parameter_age': self._variables.age(),
      },
      index=self._seed,
    )
