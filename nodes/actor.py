"""The actor: plays a batch of environments and writes what it sees."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait

import dm_env
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent, NStep, Sequences
from callsheet.calls import call_async, lasting, retried
from callsheet.errors import UnknownSource, UsageError
from callsheet.nodes.acting import Acting, Inference, LocalPolicy, RemotePolicy
from callsheet.nodes.counter import Counter, Tally
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.playing import EpisodeReturns
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay
from callsheet.nodes.sharded_replay import joined
from callsheet.nodes.step_writing import StepWriter
from callsheet.nodes.variables import ParameterSource
from callsheet.nodes.writing import NStepWriter


class Actor:
  """Acts with parameters that it pulls in the background, or lets a server act.

  While one block of experience is on its way to the replay, the next is played; if the
  replay holds it back, so that learning can follow, the actor waits. For an agent that
  is `on_policy` it plays nothing meanwhile: that would be of an older policy.

  Args:
    agent: whose policy it plays.
    make_environment: makes its environments.
    replay: gets the experience.
    learner: gives the parameters; None where a server acts.
    counter: counts `actor_steps` (of all environments) and `episodes`.
    recorder: gets the returns and the age of the parameters.
    seed: of environments and policy; also tells it from its fellows.
    num_environments: B, stepped together.
    block_length: T, steps of the batch between two writes. None takes 16, or where the
      agent is `on_policy` the length of its sequences, which then are of one policy
      each.
    update_period: seconds between two pulls of the parameters; an agent that is
      `on_policy` takes the newest ones for each block.
    report_period: seconds between two reports to counter and recorder.
    inference: acts in the policy's place, with parameters and a carry of its own.

  Raises:
    UsageError: `num_environments` or `block_length` is below 1, the agent writes
      sequences to a table that isn't fed with time steps, or there is not just one of
      learner and inference.
  """

  def __init__(
    self,
    agent: Agent,
    make_environment: MakeEnvironment,
    replay: Replay | Sequence[Replay],
    learner: ParameterSource | None,
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    num_environments: int = 8,
    block_length: int | None = None,
    update_period: float = 0.1,
    report_period: float = 0.5,
    inference: Inference | None = None,
  ) -> None:
    if block_length is None:
      block_length = _block_length(agent)
    if block_length < 1:
      raise UsageError(f'block_length is {block_length}, expected at least 1')
    if (learner is None) == (inference is None):
      raise UsageError(
        'an actor acts by itself or through a server, and is given '
        f'{"neither" if learner is None else "both"}: Actor(..., learner, ...) or '
        'Actor(..., None, ..., inference=server)'
      )
    self._agent, self._replay = agent, joined(replay)
    self._tally, self._recorder = Tally(counter), recorder
    self._environment = make_environment(num_environments, seed)
    self._seed = seed
    self._block_length = block_length
    self._report_period = report_period
    self._policy: Acting
    if inference is not None:
      self._policy = RemotePolicy(inference, seed)
    elif learner is not None:
      self._policy = LocalPolicy(
        agent,
        learner,
        # Not in the midst of a block, which is to be of one policy.
        update_period=math.inf if agent.on_policy else update_period,
        seed=seed,
        num_environments=self._environment.num_environments,
      )
    self._returns = EpisodeReturns(num_environments)
    self._writer = make_writer(agent)
    self._appended = False
    self._steps = 0
    self._ended: list[float] = []
    self._reported_at = time.monotonic()
    self._time_step: dm_env.TimeStep | None = None

  def run(self, stop: threading.Event) -> None:
    """Plays until the stop.

    Whichever way it ends, the steps that it has taken are counted by then.

    Raises:
      CallCancelled: the stop came while the replay held it back.
      Exception: whatever environment, replay, learner, server, counter or recorder
        raised.
    """
    try:
      self._play(stop)
    finally:
      self.report()

  def close(self) -> None:
    """Closes the environments."""
    self._environment.close()

  def play_block(self, stop: threading.Event, newest: bool = False) -> bool:
    """Plays the steps between two writes; False if the stop came before their end.

    Args:
      stop: ends it early.
      newest: whether to ask for the newest parameters first, and wait for them.
    """
    time_step = self._time_step or self._environment.reset()
    if newest or self._agent.on_policy:
      self._policy.refresh()
    for _ in range(self._block_length):
      # In every step: a block of a slow environment may outlast a stop's patience.
      if stop.is_set():
        return False
      first = time_step.step_type == dm_env.StepType.FIRST
      action, extras = self._policy.act(time_step.observation, first)
      time_step = self._step(time_step, action, extras)
    self._time_step = time_step
    return True

  def _play(self, stop: threading.Event) -> None:
    sent: Future[int] | None = None
    while self.play_block(stop):
      # Before the wait, which may be long: what was played shows already.
      if time.monotonic() - self._reported_at >= self._report_period:
        self.report()
      self._arrived(sent)
      sent = self.write()
      if self._agent.on_policy:
        self._arrived(sent)

  def _arrived(self, sent: Future[int] | None) -> None:
    """Waits for it, which may take long; what was played is counted meanwhile."""
    if sent is None:
      return
    left = self._reported_at + self._report_period - time.monotonic()
    if not wait([sent], max(0.0, left)).done:
      self.report()
    sent.result()

  def write(self) -> Future[int] | None:
    """Sends what was played since the last call, if it makes anything.

    A block that is lost with its replay is sent again, to the restarted one; should
    the replay have lost no more than the connection, it is there twice.
    """
    table = self._agent.writes.table
    columns = self._writer.take()
    if columns is None:
      return None
    if isinstance(self._writer, NStepWriter):
      return lasting(lambda _: call_async(self._replay.insert, table, columns))
    fresh, self._appended = not self._appended, True

    def append(again: bool) -> Future[int]:
      # A replay that was lost no longer knows what its episodes had begun with.
      return call_async(
        self._replay.append, table, self._seed, columns, fresh=fresh or again
      )

    return lasting(append, *(() if fresh else (UnknownSource,)))

  def _step(
    self, before: dm_env.TimeStep, action: NDArray[np.generic], extras: object
  ) -> dm_env.TimeStep:
    after = self._environment.step(action)
    if isinstance(self._writer, NStepWriter):
      self._writer.observe(before, action, after)
    else:
      self._writer.observe(before, action, after, extras)
    self._ended += self._returns.observe(after)
    self._steps += int(np.sum(after.step_type != dm_env.StepType.FIRST))
    return after

  def report(self) -> None:
    """Counts and records what was played since the last call."""
    steps, ended = self._steps, self._ended
    self._steps, self._ended = 0, []
    self._reported_at = time.monotonic()
    if not steps:
      return
    self._tally.add(actor_steps=steps, episodes=len(ended))
    figures = {'parameter_age': self._policy.parameter_age()}
    if ended:
      figures['return'] = float(np.mean(ended))
    retried(self._recorder.record)('actor', figures, index=self._seed)


def _block_length(agent: Agent) -> int:
  if agent.on_policy and isinstance(agent.writes, Sequences):
    return agent.writes.sequence_length
  return 16


def make_writer(agent: Agent) -> NStepWriter | StepWriter:
  """What makes an actor's time steps into what the agent's table takes.

  Raises:
    UsageError: the agent writes sequences to a table that isn't fed with time steps.
  """
  writes = agent.writes
  for table in agent.tables:
    if table.name == writes.table and table.steps is not None:
      return StepWriter(table.steps)
  if isinstance(writes, NStep):
    return NStepWriter(writes)
  raise UsageError(
    f'{agent.name} writes {type(writes).__name__} to {writes.table!r}, a table that is '
    f'not fed with time steps; declare it by step_table(spec, writes, max_size)'
  )
