"""What can be chosen of MPO and DMPO."""

from __future__ import annotations

from dataclasses import dataclass

from callsheet.agents import checks


@dataclass(frozen=True)
class MPOConfig:
  """What can be chosen; the defaults solve Pendulum-v1.

  Attributes:
    distributional: the critic gives a distribution over `num_atoms` returns.
    num_atoms: evenly from `v_min` to `v_max`.
    v_min: the least discounted return that a distributional critic knows.
    v_max: the largest.
    num_samples: actions sampled in a state, to value it and to improve the policy.
    tanh_mean: the policy's mean is squashed into the bounds.
    action_penalty: samples that are out of bounds lose weight.
    per_dimension: mean and deviation of each number in an action have bounds and
      multipliers of their own; else all numbers together.
    epsilon: nats from the policy to the weighted samples.
    epsilon_penalty: the same for `action_penalty`.
    epsilon_mean: nats that the mean may move from the target policy's.
    epsilon_stddev: the same for the standard deviation.
    initial_stddev: in a policy that has learnt nothing yet; 1 is half the bounds.
    min_stddev: what it never falls below.
    initial_temperature: of the E-step; for the values' scale.
    initial_penalty_temperature: of the weights of `action_penalty`.
    initial_multiplier_mean: what a nat of the mean's divergence costs.
    initial_multiplier_stddev: of the standard deviation's.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the dense layers, see `networks.torso`.
    policy_sizes: of the policy's dense layers.
    critic_sizes: of the critic's.
    layer_norm: the first dense layer is normalized, and squashed by tanh.
    policy_learning_rate: Adam's.
    critic_learning_rate: Adam's.
    dual_learning_rate: Adam's, of temperatures and multipliers.
    max_gradient_norm: of policy and critic each; None for no clipping.
    batch_size: transitions in one update.
    policy_update_period: updates from one copy to the target policy to the next.
    critic_update_period: the same for the target critic.
    samples_per_insert: how often a transition is sampled on average; None for no bound.
    min_replay_size: transitions before the first update.
    max_replay_size: transitions held.

  Raises:
    UsageError: a value out of its range.
  """

  distributional: bool = False
  num_atoms: int = 51
  v_min: float = -150.0
  v_max: float = 150.0
  num_samples: int = 16
  tanh_mean: bool = False
  action_penalty: bool = True
  per_dimension: bool = True
  epsilon: float = 0.1
  epsilon_penalty: float = 1e-3
  epsilon_mean: float = 2.5e-3
  epsilon_stddev: float = 1e-5
  initial_stddev: float = 0.5
  min_stddev: float = 1e-6
  initial_temperature: float = 10.0
  initial_penalty_temperature: float = 1.0
  initial_multiplier_mean: float = 10.0
  initial_multiplier_stddev: float = 100.0
  n_step: int = 5
  discount: float = 0.99
  torso: str = 'auto'
  policy_sizes: tuple[int, ...] = (64, 64)
  critic_sizes: tuple[int, ...] = (64, 64)
  layer_norm: bool = True
  policy_learning_rate: float = 1e-3
  critic_learning_rate: float = 1e-3
  dual_learning_rate: float = 1e-2
  max_gradient_norm: float | None = 40.0
  batch_size: int = 64
  policy_update_period: int = 25
  critic_update_period: int = 25
  samples_per_insert: float | None = 32.0
  min_replay_size: int = 1_000
  max_replay_size: int = 500_000

  def __post_init__(self) -> None:
    for name in ('num_samples', 'n_step', 'batch_size', 'policy_update_period'):
      checks.integer(self, name, 1)
    for name in ('critic_update_period', 'min_replay_size', 'max_replay_size'):
      checks.integer(self, name, 1)
    checks.integer(self, 'num_atoms', 2)
    for name in ('epsilon', 'epsilon_penalty', 'epsilon_mean', 'epsilon_stddev'):
      checks.number(self, name, 0, zero=False)
    for name in ('stddev', 'temperature', 'penalty_temperature'):
      checks.number(self, f'initial_{name}', 0, zero=False)
    for name in ('multiplier_mean', 'multiplier_stddev'):
      checks.number(self, f'initial_{name}', 0, zero=False)
    for name in ('policy', 'critic', 'dual'):
      checks.number(self, f'{name}_learning_rate', 0, zero=False)
    checks.number(self, 'min_stddev', 0, zero=False)
    checks.number(self, 'discount', 0, 1, zero=False)
    for name in ('max_gradient_norm', 'samples_per_insert'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    for name in ('policy_sizes', 'critic_sizes'):
      sizes = getattr(self, name)
      if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        checks.refuse(self, name, 'positive integers, at least one')
    if not self.v_min < self.v_max:
      checks.refuse(self, 'v_max', f'more than v_min, {self.v_min}')
    for name in ('batch_size', 'min_replay_size'):
      if getattr(self, name) > self.max_replay_size:
        checks.refuse(self, name, f'at most max_replay_size, {self.max_replay_size}')


@dataclass(frozen=True)
class DMPOConfig(MPOConfig):
  """MPO with a distributional critic; see `MPOConfig`."""

  distributional: bool = True
