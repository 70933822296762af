"""The learner: samples, updates, and gives its parameters to whoever asks."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

import jax
import numpy as np

from callsheet.agents.base import Agent, Metrics, State
from callsheet.calls import call_async, retried
from callsheet.errors import ConnectionLost, Unavailable, UsageError
from callsheet.nodes import checkpoints, snapshots
from callsheet.nodes.agreeing import agreement
from callsheet.nodes.counter import Counter, Tally
from callsheet.nodes.prefetching import Placed, Prefetch
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay, Sample, Sampled
from callsheet.nodes.sharded_replay import joined
from callsheet.nodes.sharding import placement
from callsheet.nodes.snapshots import Learnt
from callsheet.nodes.variables import Parameters

# Seconds in which a state that is spread over processes is gathered.
_TURN = 120.0


class Learner:
  """Trains an agent on what the replay samples.

  One dispatch to the device does several updates in a `lax.scan`, with the state
  donated, while the next batches are on their way.

  It learns on all devices that JAX shows, those of the other processes included where
  JAX was told of them: then each of these processes has such a learner, which draws its
  share of every batch. All give the parameters; the first alone counts, records and
  saves.

  Restarted, it goes on from the newest snapshot. Versions and `learner_steps` go on
  from where they were: steps that were lost count, as others may have used what they
  made.

  Args:
    agent: what is trained.
    replay: where its batches come from; a dataset offline.
    counter: counts `learner_steps`.
    recorder: gets the metrics of the newest dispatch, the mean of its updates.
    seed: of the initial parameters.
    updates_per_dispatch: K, updates in one dispatch and batches in one sample.
    prefetch: samples on the device ahead of the one that is learnt on; each makes
      priorities one dispatch older. None for an agent that is `on_policy`.
    publish_period: seconds between two versions of the parameters, and two reports; an
      agent that is `on_policy` has each update's parameters published.
    max_steps: `run` returns after exactly so many updates; None goes on until the stop.
    checkpoint_directory: the state is saved there in the end; None saves nothing.
    snapshot_directory: where the run's snapshots are; None begins anew.

  Raises:
    UsageError: `updates_per_dispatch` or `prefetch` is below 1, the devices can't
      share the batches evenly, or the snapshots are damaged or another agent's.
  """

  def __init__(
    self,
    agent: Agent,
    replay: Sampled | Sequence[Replay],
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    updates_per_dispatch: int = 8,
    prefetch: int = 1,
    publish_period: float = 0.1,
    max_steps: int | None = None,
    checkpoint_directory: str | None = None,
    snapshot_directory: str | None = None,
  ) -> None:
    if updates_per_dispatch < 1:
      raise UsageError(
        f'updates_per_dispatch is {updates_per_dispatch}, expected at least 1'
      )
    if prefetch < 1:
      raise UsageError(f'prefetch is {prefetch}, expected at least 1')
    self._agent, self._replay = agent, joined(replay)
    self._prefetch = 0 if agent.on_policy else prefetch
    self._tally, self._recorder = Tally(counter), recorder
    self._updates_per_dispatch = updates_per_dispatch
    self._publish_period = 0.0 if agent.on_policy else publish_period
    self._report_period, self._reported_at = publish_period, time.monotonic()
    self._max_steps = max_steps
    self._checkpoint_directory = checkpoint_directory
    self._placement, self._agreement = placement(agent), agreement()
    self._steps, self._lost = 0, 0
    if snapshot_directory is None:
      self._state = self._placement.state(seed)
    else:
      self._state = self._restored(Path(snapshot_directory), seed)
      counted = retried(counter.counts)().get('learner_steps', 0)
      self._lost = max(self._lost, counted - self._steps)
    self._gathered: State | None = None
    self._metrics: Metrics = {}
    self._counted = self._reported = self._steps
    # Held while the state is given away, and while it is copied for a snapshot.
    self._dispatching = threading.Lock()
    self._wanted: Future[tuple[State, Learnt]] | None = None
    self._publish()
    self._dispatch = self._placement.dispatch()

  def parameters(self, known: int = -1) -> Parameters | None:
    """The newest published parameters, or None if `known` is their version already.

    Args:
      known: the caller's version; -1 for none.
    """
    published = self._published
    return None if published.version == known else published

  def save(self, directory: str) -> Learnt:
    """Writes the state as it is between two dispatches; learning goes on meanwhile.

    Args:
      directory: a folder that isn't there yet.

    Raises:
      UsageError: it can't be written, or the state is spread over processes that wait
        for samples.
    """
    if self._placement.spread:
      state, learnt = self._gather_in_turn()
    else:
      with self._dispatching:
        state, learnt = self._placement.whole(self._state), self._learnt()
    checkpoints.save(directory, state)
    return learnt

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
      self.report()

  def close(self) -> None:
    """Saves the state, if it was given a folder for it.

    One that is spread over processes was gathered when they left `run` together. One
    that can't be written is lost, with a warning; snapshots stay.
    """
    if self._checkpoint_directory is None or not self._placement.leads:
      return
    if not self._placement.spread:
      self._gathered = self._placement.whole(self._state)
    if self._gathered is not None:
      try:
        checkpoints.save(self._checkpoint_directory, self._gathered)
      except UsageError as error:
        logging.getLogger(__name__).warning('the last state is not saved: %s', error)

  def _learn(self, stop: threading.Event) -> None:
    placement = self._placement
    prefetch = Prefetch(
      self._replay, placement.samples, self._sizes(), self._prefetch, placement.place
    )
    # The replay fills meanwhile, and whoever is stopped by then needn't compile. Of
    # several processes all do: on some devices that is work which they share.
    needless = prefetch.at_end or prefetch.ready or stop.is_set()
    if jax.process_count() > 1 or not needless:
      self._compile()
    updating: Future[None] | None = None
    while turn := self._agreement.next(
      prefetch, stop, self._time_to_publish(), self._wanted is not None
    ):
      before = self._metrics
      if turn.gather:
        self._gather()
      self._update(turn.placed)
      # Dispatches don't wait for the device: unbounded, they would draw ahead of it.
      jax.block_until_ready(before)  # type: ignore[no-untyped-call]
      _heard(updating)
      updating = self._update_priorities(turn.placed.sample, self._metrics)
      if prefetch.at_end or turn.publish:
        # First: a version that somebody has seen is never made again.
        self._count()
        self._publish()
      if time.monotonic() - self._reported_at >= self._report_period:
        self.report()
    if placement.spread and self._checkpoint_directory is not None:
      self._gathered = placement.whole(self._state)
    _heard(updating)

  def draw(self) -> Future[Sample]:
    """Asks for the sample of one dispatch."""
    samples, size = self._placement.samples, self._updates_per_dispatch
    return call_async(self._replay.sample, samples.table, samples.batch_size, size)

  def learn_on(self, sample: Sample) -> None:
    """Learns on one sample and publishes.

    What it says to the replay has been heard by then: nothing of it is under way.
    """
    place = self._placement.place
    self._update(Placed(sample, place(sample.batch) if place else sample.batch))
    updating = self._update_priorities(sample, self._metrics)
    if updating is not None:
      updating.result()
    self._publish()

  def _update(self, placed: Placed) -> None:
    with self._dispatching:
      self._state, self._metrics = self._dispatch(self._state, placed.batch)
      self._steps += len(placed.sample.keys)

  def _compile(self) -> None:
    """Makes the program of a whole dispatch; calls with such batches find it there."""
    batches = self._placement.batches(self._updates_per_dispatch)
    self._dispatch.lower(self._state, batches).compile()

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
      self._placement.rows(metrics['priorities']),
    )

  def _time_to_publish(self) -> bool:
    return time.monotonic() - self._published_at >= self._publish_period

  def _publish(self) -> None:
    # A copy: the next dispatch gives these buffers away.
    params = self._placement.whole(self._agent.parameters(self._state))
    self._published = Parameters(self._learnt().version, params)
    self._published_at = time.monotonic()

  def report(self) -> None:
    """Counts and records what was learnt since the last call."""
    self._count()
    steps, self._reported = self._steps - self._reported, self._steps
    self._reported_at = time.monotonic()
    if not steps or not self._placement.leads:
      return
    figures = {
      name: float(np.mean(np.asarray(value)))
      for name, value in self._metrics.items()
      if name != 'priorities'
    }
    retried(self._recorder.record)('learner', figures)

  def _count(self) -> None:
    steps, self._counted = self._steps - self._counted, self._steps
    if steps and self._placement.leads:
      self._tally.add(learner_steps=steps)

  def _learnt(self) -> Learnt:
    return Learnt(self._steps, self._steps + self._lost)

  def _restored(self, directory: Path, seed: int) -> State:
    found = snapshots.newest(directory, part='learner')
    if found is None:
      return self._placement.state(seed)
    for place, why in found.passed_over:
      logging.getLogger(__name__).warning(
        'snapshot %s is damaged (%s); going back to %s',
        place.name,
        why,
        found.place.name,
      )
    shapes = jax.eval_shape(self._agent.init, jax.random.PRNGKey(0))
    like = jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), shapes)
    state = checkpoints.restore(str(found.place / 'learner'), like)
    self._steps, version = found.learnt
    self._lost = version - self._steps
    return self._placement.put(state)

  def _gather(self) -> None:
    """All processes together; the first has somebody who waits for it."""
    state, wanted = self._placement.whole(self._state), self._wanted
    self._wanted = None
    if wanted is not None:
      wanted.set_result((state, self._learnt()))

  def _gather_in_turn(self) -> tuple[State, Learnt]:
    wanted: Future[tuple[State, Learnt]] = Future()
    self._wanted = wanted
    if not wait([wanted], _TURN).done:
      self._wanted = None
      raise UsageError(
        f'the learner has made no dispatch within {_TURN:g} s, in which its processes '
        'could gather their state: does it wait for samples?'
      )
    return wanted.result()


def _heard(updating: Future[None] | None) -> None:
  """Waits for new priorities to arrive; those of a replay that was lost are lost."""
  if updating is not None:
    with contextlib.suppress(ConnectionLost, Unavailable):
      updating.result()
