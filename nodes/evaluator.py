"""The evaluator: plays the newest policy as it is meant to be; says when it is done."""

from __future__ import annotations

import json
import logging
import math
import threading

import jax
import numpy as np
from numpy.typing import NDArray

from callsheet.agents.base import Agent, Params
from callsheet.calls import retried
from callsheet.errors import UsageError
from callsheet.nodes import checkpoints
from callsheet.nodes.counter import Counter
from callsheet.nodes.environments import MakeEnvironment
from callsheet.nodes.playing import jit_policy, play_episodes
from callsheet.nodes.recorder import Recorder
from callsheet.nodes.variables import ParameterSource, VariableClient


class Evaluator:
  """Plays a batch of episodes for each version of the parameters that it gets hold of.

  None is played twice, and the parameters are kept only if their mean return is above
  all before it, those of the node's earlier lives included.

  Args:
    agent: whose evaluation policy it plays.
    make_environment: makes its environments.
    learner: gives the parameters.
    counter: its `actor_steps` and `learner_steps` are what budgets are of.
    recorder: gets `return` (the mean), `best_return` and both counts so far.
    seed: of environments and policy.
    num_episodes: played at once, each in an environment of its own.
    target_return: `run` returns once the mean return is at least this, and again over
      as many fresh episodes of the same parameters.
    max_actor_steps: once so many are spent, `run` evaluates the newest parameters, if
      it hasn't yet, and returns.
    max_learner_steps: likewise; offline there is no actor.
    policy_directory: the best parameters are saved there, those that reach the target
      last of all, and beside it what they returned; None saves nothing.
    period: seconds from the end of one evaluation to the next.
  """

  def __init__(
    self,
    agent: Agent,
    make_environment: MakeEnvironment,
    learner: ParameterSource,
    counter: Counter,
    recorder: Recorder,
    *,
    seed: int = 0,
    num_episodes: int = 20,
    target_return: float | None = None,
    max_actor_steps: int | None = None,
    max_learner_steps: int | None = None,
    policy_directory: str | None = None,
    period: float = 0.3,
  ) -> None:
    self._agent, self._counter, self._recorder = agent, counter, recorder
    self._environment = make_environment(num_episodes, seed)
    self._act = jit_policy(agent.evaluation_policy)
    self._variables = VariableClient(learner, period=0.0)
    self._key = jax.random.PRNGKey(seed)
    self._target_return = target_return
    self._budgets = {
      'actor_steps': max_actor_steps,
      'learner_steps': max_learner_steps,
    }
    self._policy_directory = policy_directory
    self._period = period
    self._best, self._evaluated = _best_return(policy_directory), -1

  def run(self, stop: threading.Event) -> None:
    """Evaluates until the target or the budget is reached, or the stop comes."""
    while not stop.wait(self._period):
      if self.evaluate(stop):
        return

  def evaluate(self, stop: threading.Event) -> bool:
    """Evaluates the newest parameters, if it hasn't yet.

    Returns:
      whether the target or the budget is reached.
    """
    # Counted before the parameters are asked for, which are no older than that.
    counts = retried(self._counter.counts)()
    steps = {name: counts.get(name, 0) for name in self._budgets}
    params = self._variables.refresh()
    reached = False
    if self._variables.version != self._evaluated:
      self._evaluated = self._variables.version
      reached = self._evaluate(params, steps, stop)
    return reached or any(
      budget is not None and steps[name] >= budget
      for name, budget in self._budgets.items()
    )

  def close(self) -> None:
    """Closes the environments."""
    self._environment.close()

  def _evaluate(
    self, params: Params, steps: dict[str, int], stop: threading.Event
  ) -> bool:
    returns = self._play(params, stop)
    reached = self._reaches(returns)
    if reached:
      # Of many evaluations one is lucky: fresh episodes must say so too.
      fresh = self._play(params, stop)
      reached = self._reaches(fresh)
      returns = None if fresh is None else np.concatenate([returns, fresh])
    if returns is None:
      return False
    mean = float(np.mean(returns))
    if reached or mean > self._best:
      self._best = max(mean, self._best)
      self._save(params)
    retried(self._recorder.record)(
      'evaluator', {'return': mean, 'best_return': self._best, **steps}
    )
    return reached

  def _play(self, params: Params, stop: threading.Event) -> NDArray[np.float64] | None:
    self._key, key = jax.random.split(self._key)
    carry = self._agent.initial_carry(self._environment.num_environments)
    return play_episodes(self._act, params, carry, self._environment, key, stop)

  def _save(self, params: Params) -> None:
    if self._policy_directory is None:
      return
    try:
      checkpoints.save(self._policy_directory, params)
      with open(_note(self._policy_directory), 'w') as file:
        json.dump({'return': self._best}, file)
    except (OSError, UsageError) as error:
      # Of a full disk the run needn't die: the next one may fit.
      logging.getLogger(__name__).warning('the best policy is not saved: %s', error)

  def _reaches(self, returns: NDArray[np.float64] | None) -> bool:
    if returns is None or self._target_return is None:
      return False
    return float(np.mean(returns)) >= self._target_return


def _note(policy_directory: str) -> str:
  return f'{policy_directory}.json'


def _best_return(policy_directory: str | None) -> float:
  """Of the policy that an earlier life has saved."""
  if policy_directory is None:
    return -math.inf
  try:
    with open(_note(policy_directory)) as file:
      return float(json.load(file)['return'])
  except (OSError, ValueError, KeyError, TypeError):
    return -math.inf
