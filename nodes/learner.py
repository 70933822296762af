"""The learner: samples, updates, and gives its parameters to whoever asks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np

from callsheet.agents.base import Agent, Batch, Metrics
from callsheet.calls import call_async
from callsheet.errors import UsageError
from callsheet.nodes import checkpoints
from callsheet.nodes.counter import Counter
from callsheet.nodes.prefetching import Prefetch
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay, Sample
from callsheet.nodes.sharded_replay import joined
from callsheet.nodes.variables import Parameters


class Learner:
  """Trains an agent on what the replay samples.

  One dispatch to the device does several updates in a `lax.scan`, with the state
  donated, while the next batches are on their way.

  Args:
    agent: what is trained.
    replay: where its batches come from.
    counter: counts `learner_steps`.
    recorder: gets the metrics of the newest dispatch, the mean of its updates.
    seed: of the initial parameters.
    updates_per_dispatch: K, updates in one dispatch and batches in one sample.
    prefetch: samples on the device ahead of the one that is learnt on; each makes
      priorities one dispatch older.
    publish_period: seconds between two versions of the parameters, and two reports.
    max_steps: `run` returns after exactly so many updates; None goes on until the stop.
    checkpoint_directory: the state is saved there in the end; None saves nothing.

  Raises:
    UsageError: `updates_per_dispatch` or `prefetch` is below 1.
  """

  def __init__(
    self,
    agent: Agent,
    replay: Replay | Sequence[Replay],
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    updates_per_dispatch: int = 8,
    prefetch: int = 1,
    publish_period: float = 0.1,
    max_steps: int | None = None,
    checkpoint_directory: str | None = None,
  ) -> None:
    if updates_per_dispatch < 1:
      raise UsageError(
        f'updates_per_dispatch is {updates_per_dispatch}, expected at least 1'
      )
    if prefetch < 1:
      raise UsageError(f'prefetch is {prefetch}, expected at least 1')
    self._agent, self._replay = agent, joined(replay)
    self._prefetch = prefetch
    self._counter, self._recorder = counter, recorder
    self._updates_per_dispatch = updates_per_dispatch
    self._publish_period = publish_period
    self._max_steps = max_steps
    self._checkpoint_directory = checkpoint_directory
    state = jax.jit(agent.init)(jax.random.PRNGKey(seed))
    # Committed, as what a dispatch returns is: else the second would compile once more.
    sharding = jax.tree.leaves(state)[0].sharding
    self._state = jax.device_put(state, sharding)
    on_cpu = all(device.platform == 'cpu' for device in sharding.device_set)
    self._sharding = None if on_cpu else sharding
    self._metrics: Metrics = {}
    self._steps = 0
    self._reported = 0
    self._publish()
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
    """Learns until the stop, or until it has done `max_steps` updates.

    Whichever way it ends, what it has done is counted by then.

    Raises:
      CallCancelled: the stop came while it waited for a sample.
      Exception: whatever the replay, the counter or the recorder raised.
    """
    try:
      self._learn(stop)
    finally:
      self._report()

  def close(self) -> None:
    """Saves the state, if it was given a folder for it."""
    if self._checkpoint_directory is not None:
      checkpoints.save(self._checkpoint_directory, self._state)

  def _learn(self, stop: threading.Event) -> None:
    prefetch = Prefetch(
      self._replay, self._agent.samples, self._sizes(), self._prefetch, self._sharding
    )
    # The replay fills meanwhile, and whoever is stopped by then needn't compile.
    if not (prefetch.at_end or prefetch.ready or stop.is_set()):
      self._compile()
    updating: Future[None] | None = None
    while not stop.is_set() and (placed := prefetch.take()) is not None:
      before = self._metrics
      self._state, self._metrics = self._dispatch(self._state, placed.batch)
      self._steps += len(placed.sample.keys)
      # Dispatches don't wait for the device: unbounded, they would draw ahead of it.
      jax.block_until_ready(before)  # type: ignore[no-untyped-call]
      if updating is not None:
        updating.result()
      updating = self._update_priorities(placed.sample, self._metrics)
      if prefetch.at_end or self._time_to_publish():
        self._publish()
        self._report()
    if updating is not None:
      updating.result()

  def _compile(self) -> None:
    """Makes the program of a whole dispatch; calls with such batches find it there."""
    samples = self._agent.samples
    leading = (self._updates_per_dispatch, samples.batch_size)

    table = next(each for each in self._agent.tables if each.name == samples.table)

    def batches() -> Batch:
      data = {
        name: jnp.zeros(
          (*leading, *column.shape), jax.dtypes.canonicalize_dtype(column.dtype)
        )
        for name, column in table.columns.items()
      }
      return Batch(
        data, jnp.zeros(leading, jnp.float32), jnp.zeros(leading[:1], jnp.int32)
      )

    # Where the prefetched ones will be: else the call would compile once more.
    def place(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
        array.shape, array.dtype, sharding=self._sharding
      )

    placed = jax.tree.map(place, jax.eval_shape(batches))
    self._dispatch.lower(self._state, placed).compile()

  def _sizes(self) -> Iterator[int]:
    """K of each sample; one behind the last would be drawn for nothing."""
    left = math.inf if self._max_steps is None else self._max_steps - self._steps
    while left > 0:
      size = int(min(self._updates_per_dispatch, left))
      left -= size
      yield size

  def _update_priorities(self, sample: Sample, metrics: Metrics) -> Future[None] | None:
    if 'priorities' not in metrics:
      return None
    return call_async(
      self._replay.update_priorities,
      self._agent.samples.table,
      sample.keys,
      np.asarray(metrics['priorities']),
    )

  def _time_to_publish(self) -> bool:
    return time.monotonic() - self._published_at >= self._publish_period

  def _publish(self) -> None:
    # A copy: the next dispatch gives these buffers away.
    params = jax.tree.map(np.array, self._agent.parameters(self._state))
    self._published = Parameters(self._steps, params)
    self._published_at = time.monotonic()

  def _report(self) -> None:
    steps, self._reported = self._steps - self._reported, self._steps
    if not steps:
      return
    self._counter.add(learner_steps=steps)
    figures = {
      name: float(np.mean(np.asarray(value)))
      for name, value in self._metrics.items()
      if name != 'priorities'
    }
    self._recorder.record('learner', figures)
