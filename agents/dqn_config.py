"""What can be chosen of DQN, and what of it makes Rainbow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from callsheet.agents import checks
from callsheet.errors import UsageError

Distribution = Literal['none', 'categorical', 'quantile', 'implicit']


@dataclass(frozen=True)
class DQNConfig:
  """What can be chosen; the defaults solve CartPole-v1.

  Attributes:
    double: the online network selects the action that the target network values.
    dueling: separate streams for the state's value and the actions' advantages.
    prioritized: sample by TD error, with importance weights; else uniformly.
    noisy: the head's weights are noisy, and that noise explores; then `epsilon` may
      be 0.
    distribution: what the network says of a return: 'none' for its mean alone,
      'categorical' (C51), 'quantile' (QR-DQN) or 'implicit' (IQN).
    munchausen: adds the chosen action's log-probability to its reward, and values the
      next state softly; instead of `double`.
    num_stacked: frames in an observation along its last axis, the newest last; 4 for
      Atari as it is usually wrapped.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the head, see `networks.torso`.
    hidden_sizes: of the dense layers; the last is the head's, once in each stream.
    noise_scale: the noise's standard deviation at first, times the square root of a
      layer's inputs; sigma_0 of Fortunato et al.
    num_atoms: of a categorical distribution.
    v_min: the lowest atom; returns below count as it.
    v_max: the highest atom.
    num_quantiles: of 'quantile'.
    num_samples: the quantiles of 'implicit' in the loss.
    num_policy_samples: the quantiles of 'implicit' whose mean an action is valued by.
    embedding_size: the cosines of a quantile's probability, of 'implicit'.
    munchausen_alpha: weight of the log-probability.
    munchausen_temperature: of the policy, a softmax of the values.
    munchausen_clip: the least that temperature times log-probability counts as.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    huber_delta: the TD error from which on the loss is linear; None for squares only,
      of quantiles for linear only. A categorical loss has no use for it.
    batch_size: transitions in one update.
    target_update_period: updates from one copy to the target network to the next.
    samples_per_insert: how often a transition is sampled on average; None for no bound.
    min_replay_size: transitions before the first update.
    max_replay_size: transitions held.
    epsilon: environment i of B explores with epsilon^(1 + i / (B - 1) * epsilon_alpha);
      one alone takes the middle of that ladder.
    epsilon_alpha: see `epsilon`.
    evaluation_epsilon: of the evaluation policy; 0 is greedy.
    priority_exponent: Schaul's alpha; 0 samples uniformly.
    importance_exponent: Schaul's beta; 1 corrects the sampling's bias wholly.

  Raises:
    UsageError: a value out of its range, or switches that don't go together.
  """

  double: bool = True
  dueling: bool = False
  prioritized: bool = True
  noisy: bool = False
  distribution: str = 'none'
  munchausen: bool = False
  num_stacked: int = 1
  n_step: int = 5
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  noise_scale: float = 0.5
  num_atoms: int = 51
  v_min: float = -10.0
  v_max: float = 10.0
  num_quantiles: int = 32
  num_samples: int = 8
  num_policy_samples: int = 16
  embedding_size: int = 64
  munchausen_alpha: float = 0.9
  munchausen_temperature: float = 0.03
  munchausen_clip: float = -1.0
  learning_rate: float = 2e-3
  adam_epsilon: float = 1e-5
  max_gradient_norm: float | None = 10.0
  huber_delta: float | None = 1.0
  batch_size: int = 64
  target_update_period: int = 25
  samples_per_insert: float | None = 16.0
  min_replay_size: int = 1_000
  max_replay_size: int = 50_000
  epsilon: float = 0.3
  epsilon_alpha: float = 1.0
  evaluation_epsilon: float = 0.0
  priority_exponent: float = 0.6
  importance_exponent: float = 0.4

  def __post_init__(self) -> None:
    for name in ('num_stacked', 'n_step', 'batch_size', 'target_update_period'):
      checks.integer(self, name, 1)
    for name in ('min_replay_size', 'max_replay_size'):
      checks.integer(self, name, 1)
    for name in ('num_quantiles', 'num_samples', 'num_policy_samples'):
      checks.integer(self, name, 1)
    checks.integer(self, 'embedding_size', 1)
    checks.integer(self, 'num_atoms', 2)
    for name in ('adam_epsilon', 'epsilon_alpha', 'priority_exponent', 'noise_scale'):
      checks.number(self, name, 0)
    for name in ('epsilon', 'evaluation_epsilon', 'importance_exponent'):
      checks.number(self, name, 0, 1)
    checks.number(self, 'munchausen_alpha', 0, 1)
    checks.number(self, 'discount', 0, 1, zero=False)
    for name in ('learning_rate', 'munchausen_temperature'):
      checks.number(self, name, 0, zero=False)
    checks.number(self, 'munchausen_clip', -math.inf, 0)
    for name in ('max_gradient_norm', 'huber_delta', 'samples_per_insert'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    if any(not isinstance(size, int) or size < 1 for size in self.hidden_sizes):
      checks.refuse(self, 'hidden_sizes', 'positive integers')
    for name in ('batch_size', 'min_replay_size'):
      if getattr(self, name) > self.max_replay_size:
        checks.refuse(self, name, f'at most max_replay_size, {self.max_replay_size}')
    if self.distribution not in get_args(Distribution):
      checks.refuse(self, 'distribution', ' or '.join(get_args(Distribution)))
    for name in ('v_min', 'v_max'):
      checks.number(self, name, -math.inf)
    if self.v_max <= self.v_min:
      checks.refuse(self, 'v_max', f'more than v_min, {self.v_min}')
    self._check_munchausen()

  def _check_munchausen(self) -> None:
    kind = type(self).__name__
    if self.munchausen and self.distribution == 'categorical':
      raise UsageError(
        f"{kind}: munchausen=True has no meaning with distribution='categorical': "
        'fixed atoms have no soft value; take quantiles, '
        f"{kind}(munchausen=True, double=False, distribution='quantile')"
      )
    if self.munchausen and self.double:
      raise UsageError(
        f'{kind}: double=True has no meaning with munchausen=True, which values the '
        'next state softly and selects no action there; right is '
        f'{kind}(munchausen=True, double=False)'
      )


@dataclass(frozen=True)
class RainbowConfig(DQNConfig):
  """All of DQN's improvements that Rainbow takes, for problems of CartPole's size.

  See `DQNConfig` for what each field means.
  """

  double: bool = True
  dueling: bool = True
  prioritized: bool = True
  noisy: bool = True
  distribution: str = 'categorical'
  n_step: int = 3
  v_min: float = -100.0
  v_max: float = 100.0
  epsilon: float = 0.0
