"""The check that every peer is put to, and the line that its driver prints.

Once a second, counted from the end of one check to the next, the policy plays 20 greedy
episodes; where their mean return reaches 475 it must do so again over 20 fresh ones.
The episodes run side by side in gymnasium's own vectorised CartPole, so that a check
costs the peer as little as can be.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib import metadata

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

EPISODES, STEPS, TARGET, PERIOD = 20, 500, 475.0, 1.0


def options():
  """The driver's command line: what race.py tells it."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--seed', type=int, required=True)
  parser.add_argument('--started', type=float, default=time.time(), help='Unix time.')
  parser.add_argument('--limit', type=float, default=180.0, help='Seconds.')
  return parser.parse_args()


class Target:
  """Follows one run.

  Args:
    options: see `options`.
    packages: whose versions are reported.
    config: what the peer was told, in words.
    beside: the checks run while the training goes on, and take none of its time.
  """

  def __init__(self, options, packages, config, beside=False):
    self._options, self._config, self._beside = options, config, beside
    self._versions = {name: metadata.version(name) for name in packages}
    self._environment = CartPoleVectorEnv(num_envs=EPISODES, max_episode_steps=STEPS)
    self._seed = 1_000_000 + options.seed
    self._begun = self._checked = time.time()
    self._checking, self._checks, self._first = 0.0, 0, None

  def begin(self):
    """Training begins now: the steps a second count from here."""
    self._begun = self._checked = time.time()
    self.report(False, 0)

  def due(self):
    return time.time() - self._checked >= PERIOD

  def late(self):
    return time.time() - self._options.started > self._options.limit

  def reached(self, act, steps):
    """Plays, reports, and says if that was the target or if the time is up.

    Args:
      act: the greedy policy, observations `[20, 4]` to actions `[20]`.
      steps: of the environments, by training alone.
    """
    begun = time.time()
    self._checks += 1
    means = [self._play(act)]
    if means[0] >= TARGET:
      self._first = self._first or time.time()
      means.append(self._play(act))
    self._checked = time.time()
    self._checking += self._checked - begun
    good = means[-1] >= TARGET and len(means) == 2
    self.report(good, steps, means)
    return good or self.late()

  def report(self, reached, steps, means=()):
    """Prints the line; the last one counts, so that a driver may be cut off."""
    now, started = time.time(), self._options.started
    first = self._first and self._first - started
    line = {
      'seed': self._options.seed,
      'reached': bool(reached),
      'seconds': now - started,
      'seconds_unconfirmed': first,
      'startup_seconds': self._begun - started,
      'training_seconds': now - self._begun - (0 if self._beside else self._checking),
      'checking_seconds': self._checking,
      'checks': self._checks,
      'means': list(means),
      'steps': int(steps),
      'config': self._config,
      'versions': {'python': platform.python_version(), **self._versions},
    }
    print('race ' + json.dumps(line), flush=True)

  def _play(self, act):
    """The mean return of 20 episodes; a step's reward is 1."""
    self._seed += 1
    observations, _ = self._environment.reset(seed=self._seed)
    going, returns = np.ones(EPISODES, bool), np.zeros(EPISODES)
    for _ in range(STEPS):
      returns += going
      actions = np.asarray(act(np.asarray(observations, np.float32)))
      observations, _, ended, cut, _ = self._environment.step(actions)
      going &= ~(np.asarray(ended) | np.asarray(cut))
      if not going.any():
        break
    return float(returns.mean())
