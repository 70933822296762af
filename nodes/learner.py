"""The learner: samples, updates, and gives its parameters to whoever asks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from callsheet.agents.base import Agent
from callsheet.calls import call_async
from callsheet.nodes import checkpoints
from callsheet.nodes.counter import Counter
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay, Sample
from callsheet.nodes.variables import Parameters


class Learner:
  """Trains an agent on what the replay samples.

  One dispatch to the device does several updates in a `lax.scan`, with the state
  donated, while the next batches are on their way.

  Args:
    agent: what is trained.
    replay: where its batches come from.
    counter: counts `learner_steps`.
    recorder: gets the updates' metrics.
    seed: of the initial parameters.
    updates_per_dispatch: K, updates in one dispatch and batches in one sample.
    publish_period: seconds between two versions of the parameters.
    max_steps: `run` returns after so many updates; None goes on until the stop.
    checkpoint_directory: the state is saved there in the end; None saves nothing.
  """

  def __init__(
    self,
    agent: Agent,
    replay: Replay,
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    updates_per_dispatch: int = 8,
    publish_period: float = 0.1,
    max_steps: int | None = None,
    checkpoint_directory: str | None = None,
  ) -> None:
    self._agent, self._replay = agent, replay
    self._counter, self._recorder = counter, recorder
    self._updates_per_dispatch = updates_per_dispatch
    self._publish_period = publish_period
    self._max_steps = max_steps
    self._checkpoint_directory = checkpoint_directory
    self._state = jax.jit(agent.init)(jax.random.PRNGKey(seed))
    self._steps = 0
    self._published = Parameters(0, self._host_parameters())
    self._dispatch = jax.jit(
      lambda state, batches: jax.lax.scan(agent.update, state, batches),
      donate_argnums=0,
    )

  def parameters(self, known: int = -1) -> Parameters | None:
    """The newest published parameters, or None if `known` is their version already.

    Args:
      known: the caller's version; -1 for none.
    """
    published = self._published
    return None if published.version == known else published

  def run(self, stop: threading.Event) -> None:
    """Learns until the stop, or for `max_steps` updates."""
    next_sample = self._ask()
    updated: Future[None] | None = None
    reported_at, reported = time.monotonic(), self._steps
    while not stop.is_set():
      sample = next_sample.result()
      next_sample = self._ask()
      self._state, metrics = self._dispatch(self._state, sample.batch)
      self._steps += self._updates_per_dispatch
      if updated is not None:
        updated.result()
      updated = self._update_priorities(sample, metrics)
      now = time.monotonic()
      finished = self._max_steps is not None and self._steps >= self._max_steps
      if finished or now - reported_at >= self._publish_period:
        self._published = Parameters(self._steps, self._host_parameters())
        self._report(metrics, self._steps - reported)
        reported_at, reported = now, self._steps
      if finished:
        return

  def close(self) -> None:
    """Saves the state, if it was given a folder for it."""
    if self._checkpoint_directory is not None:
      checkpoints.save(self._checkpoint_directory, self._state)

  def _ask(self) -> Future[Sample]:
    samples = self._agent.samples
    return call_async(
      self._replay.sample, samples.table, samples.batch_size, self._updates_per_dispatch
    )

  def _update_priorities(self, sample: Sample, metrics: Any) -> Future[None] | None:
    if 'priorities' not in metrics:
      return None
    return call_async(
      self._replay.update_priorities,
      self._agent.samples.table,
      sample.keys,
      np.asarray(metrics['priorities']),
    )

  def _host_parameters(self) -> Any:
    # A copy: the next dispatch gives these buffers away.
    return jax.tree.map(np.array, self._agent.parameters(self._state))

  def _report(self, metrics: Any, steps: int) -> None:
    figures = {
      name: float(np.mean(np.asarray(value)))
      for name, value in metrics.items()
      if name != 'priorities'
    }
    self._counter.add(learner_steps=steps)
    self._recorder.record('learner', figures)
