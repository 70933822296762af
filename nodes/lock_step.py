"""Acting and learning in turn: with the same seed, the same numbers again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from callsheet.agents.base import Agent
from callsheet.errors import UsageError
from callsheet.nodes.actor import Actor
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.evaluator import Evaluator
from callsheet.nodes.learner import Learner
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.replay import Replay, Sample
from callsheet.nodes.sharded_replay import joined

# Seconds between two looks at a writer that has neither written nor begun to wait.
_POLL = 2e-4


class LockStep:
  """One actor, the learner and the evaluator, each a step while the others stand still.

  A block is played with the newest parameters and written; then the learner does all
  the updates that the limiter lets pass; then comes the next block. Nothing depends on
  which of several threads was faster, so a run with a seeded replay can be repeated,
  and a breakpoint halts all of it.

  Args:
    agent: what is trained.
    make_environment: makes the actor's environments.
    replay: in between; only a seeded one draws the same again.
    counter: counts steps, as that of actor and learner do.
    recorder: gets their figures.
    seed: of the learner; the evaluator has the next, and then comes the actor.
    num_environments: see `Actor`.
    block_length: see `Actor`.
    evaluation_steps: environment steps from one evaluation to the next.
    num_episodes: see `Evaluator`.
    target_return: see `Evaluator`.
    max_actor_steps: see `Evaluator`.
    policy_directory: see `Evaluator`.
    checkpoint_directory: see `Learner`.
    make_evaluation_environment: makes the evaluator's environments; None for the same.

  Raises:
    UsageError: `evaluation_steps` is below 1, or whatever its parts refuse.
  """

  def __init__(
    self,
    agent: Agent,
    make_environment: MakeEnvironment,
    replay: Replay | Sequence[Replay],
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    num_environments: int = 8,
    block_length: int | None = None,
    evaluation_steps: int = 2_000,
    num_episodes: int = 20,
    target_return: float | None = None,
    max_actor_steps: int | None = None,
    policy_directory: str | None = None,
    checkpoint_directory: str | None = None,
    make_evaluation_environment: MakeEnvironment | None = None,
  ) -> None:
    if evaluation_steps < 1:
      raise UsageError(f'evaluation_steps is {evaluation_steps}, expected at least 1')
    self._agent, self._counter, self._replay = agent, counter, joined(replay)
    self._evaluation_steps = evaluation_steps
    self._learner = Learner(
      agent,
      self._replay,
      counter,
      recorder,
      seed=seed,
      updates_per_dispatch=1,
      checkpoint_directory=checkpoint_directory,
    )
    self._evaluator = Evaluator(
      agent,
      make_evaluation_environment or make_environment,
      self._learner,
      counter,
      recorder,
      seed=seed + 1,
      num_episodes=num_episodes,
      target_return=target_return,
      max_actor_steps=max_actor_steps,
      policy_directory=policy_directory,
    )
    self._actor = Actor(
      agent,
      make_environment,
      self._replay,
      self._learner,
      counter,
      recorder,
      seed=seed + 2,
      num_environments=num_environments,
      block_length=block_length,
      update_period=float('inf'),
    )

  def run(self, stop: threading.Event) -> None:
    """Takes turns until the evaluator has reached its target or budget, or the stop.

    Raises:
      CallCancelled: the stop came while the replay held it back.
      Exception: whatever environment, replay, counter or recorder raised.
    """
    evaluated = 0
    written: Future[int] | None = None
    drawn: Future[Sample] | None = None
    while not stop.is_set():
      credit = self._settle(written, drawn, stop)
      if drawn is not None and drawn.done():
        self._learner.learn_on(drawn.result())
        drawn = None
        continue
      if written is not None and written.done():
        written.result()
        written = None
      # A batch may be larger than what passes at once: then the writer goes on for it.
      if drawn is None and (credit >= self._agent.samples.batch_size or written):
        drawn = self._learner.draw()
        continue
      self._actor.report()
      self._learner.report()
      steps = self._counter.counts().get('actor_steps', 0)
      if steps - evaluated >= self._evaluation_steps:
        evaluated = steps
        if self._evaluator.evaluate(stop):
          return
      if self._actor.play_block(stop, newest=True):
        written = self._actor.write()

  def close(self) -> None:
    """Saves what learner and evaluator save, and closes the environments."""
    for part in (self._actor, self._learner, self._evaluator):
      part.close()

  def _settle(
    self,
    written: Future[int] | None,
    drawn: Future[Sample] | None,
    stop: threading.Event,
  ) -> float:
    """Waits until each is done or held back by the limiter; returns its credit.

    A stop ends the wait.
    """
    while True:
      # First: what is done by then shows in the standing.
      writes = written is not None and not written.done()
      draws = drawn is not None and not drawn.done()
      standing = self._replay.statistics()[self._agent.samples.table]
      # One that waits may be about to go on: not where the law holds it back.
      if writes:
        writes = not (standing.waiting_writers and standing.state == 'actors wait')
      if draws:
        held = standing.state in ('learner waits', 'filling')
        draws = not (standing.waiting_samplers and held)
      if (not writes and not draws) or stop.wait(_POLL):
        return standing.credit
