"""PPO: a few epochs of SGD on each batch of rollouts, held near the policy that played.

- the clipped objective: Schulman et al. 2017, https://arxiv.org/abs/1707.06347
- generalized advantage estimation: Schulman et al. 2016,
  https://arxiv.org/abs/1506.02438
- `normalize_values`: Pop-Art, van Hasselt et al. 2016,
  https://arxiv.org/abs/1602.07714

Where this file deviates: actors play on while the learner learns, so a rollout is of
the policy of an update or two ago; its log-probabilities are those in the objective,
while values and advantages are the learner's own, once for all epochs of an update. The
learning rate is constant. Continuous actions are clipped to their bounds on their way
into the environment, and the density is that of the action before.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

from callsheet.agents import checks, cores, networks, normalization
from callsheet.agents.actions import Bounds
from callsheet.agents.actor_critic import (
  actor_critic,
  categorical_head,
  gaussian_head,
)
from callsheet.agents.base import (
  Agent,
  Batch,
  EnvironmentSpec,
  Metrics,
  Params,
  Sampling,
)
from callsheet.agents.cores import Memory
from callsheet.agents.minibatches import epochs
from callsheet.agents.networks import Torso
from callsheet.agents.normalization import Statistics
from callsheet.agents.optimizers import clipped
from callsheet.agents.ppo_loss import Rollouts, advantages, clipped_loss, single_steps
from callsheet.agents.rollouts import TABLE, policy_lag, rollout_table

_Learnt = tuple[Params, optax.OptState]

# Normalized observations are cut off there.
_FARTHEST = 10.0
# Batches whose values the statistics look back on: targets move as the policy does.
_REMEMBERED = 20


# Config.


@dataclass(frozen=True)
class PPOConfig:
  """What can be chosen; the defaults solve CartPole-v1.

  Attributes:
    rollout_length: L, steps of a rollout.
    batch_size: rollouts in one update.
    queue_size: rollouts that may wait for the learner.
    num_epochs: how often an update sees each step.
    num_minibatches: of an epoch; of whole rollouts with an LSTM, else of single steps.
    discount: per step, in (0, 1].
    trace_decay: lambda of the advantages, in [0, 1].
    clip_ratio: how far the ratio of probabilities may go from 1.
    clip_value: how far a value may go from what it was before the update, in the
      critic's own units; None for no such bound.
    value_cost: weight of the value's loss.
    entropy_cost: weight of the policy's entropy, which is held up.
    normalize_observations: to mean 0 and variance 1 of all so far, unless they are
      integers, as pixels are.
    normalize_values: the critic learns values of mean 0 and variance 1.
    normalize_advantages: to mean 0 and variance 1 of the batch.
    initial_std: of continuous actions, where their bounds are -1 and 1.
    num_stacked: frames in an observation along its last axis, the newest last.
    torso: the kind of network below the heads, see `networks.torso`.
    hidden_sizes: of the torso's dense layers.
    shared_torso: policy and value have one together; always so with an LSTM.
    lstm_size: of an LSTM between torso and heads; None for none.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.

  Raises:
    UsageError: a value out of its range.
  """

  rollout_length: int = 32
  batch_size: int = 32
  queue_size: int = 8
  num_epochs: int = 4
  num_minibatches: int = 4
  discount: float = 0.99
  trace_decay: float = 0.95
  clip_ratio: float = 0.2
  clip_value: float | None = None
  value_cost: float = 0.5
  entropy_cost: float = 0.0
  normalize_observations: bool = True
  normalize_values: bool = True
  normalize_advantages: bool = True
  initial_std: float = 0.5
  num_stacked: int = 1
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  shared_torso: bool = False
  lstm_size: int | None = None
  learning_rate: float = 1e-3
  adam_epsilon: float = 1e-5
  max_gradient_norm: float | None = 0.5

  def __post_init__(self) -> None:
    for name in ('rollout_length', 'batch_size', 'queue_size', 'num_epochs'):
      checks.integer(self, name, 1)
    for name in ('num_minibatches', 'num_stacked'):
      checks.integer(self, name, 1)
    if self.lstm_size is not None:
      checks.integer(self, 'lstm_size', 1)
    for name in ('value_cost', 'entropy_cost', 'adam_epsilon'):
      checks.number(self, name, 0)
    checks.number(self, 'trace_decay', 0, 1)
    checks.number(self, 'discount', 0, 1, zero=False)
    for name in ('clip_ratio', 'initial_std', 'learning_rate'):
      checks.number(self, name, 0, zero=False)
    for name in ('clip_value', 'max_gradient_norm'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    if any(not isinstance(size, int) or size < 1 for size in self.hidden_sizes):
      checks.refuse(self, 'hidden_sizes', 'positive integers')
    rows, what = self.batch_size, 'batch_size'
    if self.lstm_size is None:
      rows, what = rows * self.rollout_length, 'rollout_length * batch_size'
    if rows % self.num_minibatches:
      checks.refuse(self, 'num_minibatches', f'a divisor of {what}, {rows}')


# Assembly.


class PPOState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: the network's.
    opt_state: the optimizer's.
    observations: what they are normalized by.
    values: what they are normalized by.
    key: of the shuffling.
    steps: updates so far, `[]` int32.
  """

  params: Params
  opt_state: optax.OptState
  observations: Statistics
  values: Statistics
  key: chex.PRNGKey
  steps: jax.Array


class PPOParams(NamedTuple):
  """What a policy needs.

  Attributes:
    network: its parameters.
    observations: what they are normalized by.
    version: the updates that made them, `[]` int32.
  """

  network: Params
  observations: Statistics
  version: jax.Array


def ppo(
  spec: EnvironmentSpec, config: PPOConfig = PPOConfig(), *, torso: Torso | None = None
) -> Agent:
  """PPO for discrete or continuous actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below LSTM and heads: a haiku function, observations
      `[B, ...]`, normalized if they are to be, to features `[B, F]`, that builds its
      modules anew in every call.

  Raises:
    UsageError: the environment's actions are neither discrete nor vectors with bounds,
      or its observations don't fit the torso.
  """
  bounds = Bounds.of('ppo', spec) if spec.action.dtype.kind == 'f' else None
  if bounds is None:
    num_actions = checks.num_actions('ppo', spec)
    action: specs.Array = specs.DiscreteArray(num_actions, np.int32)
    head = categorical_head(num_actions)
  else:
    action, head = spec.action, gaussian_head(bounds.size, config.initial_std)
  shape, size, sizes = spec.observation.shape, config.lstm_size, config.hidden_sizes
  taken = networks.torso(
    'ppo', spec.observation, config.torso, sizes, torso, looped=True
  )
  network = actor_critic(taken, head, size, config.shared_torso)
  loss = functools.partial(
    clipped_loss,
    network,
    clip_ratio=config.clip_ratio,
    clip_value=config.clip_value,
    value_cost=config.value_cost,
    entropy_cost=config.entropy_cost,
  )
  gradients_of = jax.grad(loss, has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  normalizes = config.normalize_observations and dtype.kind == 'f'
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def normal(seen: Statistics, observation: jax.Array) -> jax.Array:
    if not normalizes:
      return observation
    return normalization.normalize(seen, observation, _FARTHEST)

  def to_environment(drawn: jax.Array) -> jax.Array:
    return drawn if bounds is None else jnp.asarray(bounds.from_unit(drawn))

  def init(key: chex.PRNGKey) -> PPOState:
    key, shuffling = jax.random.split(key)
    params = network.init(key, jnp.zeros((1, *shape), dtype))
    return PPOState(
      params=params,
      opt_state=optimizer.init(params),
      observations=normalization.empty(shape if normalizes else ()),
      values=normalization.empty(()),
      key=shuffling,
      steps=jnp.zeros((), jnp.int32),
    )

  def rollouts_of(state: PPOState, batch: Batch) -> tuple[PPOState, Rollouts]:
    """What an update learns from, and the state by whose statistics it is normal."""
    data: dict[str, jax.Array] = jax.tree.map(jnp.asarray, dict(batch.data))
    mask, seen = data['mask'], state.observations
    if normalizes:
      seen = normalization.extend(seen, data['observation'][:, :-1])
    observation = normal(seen, data['observation'])
    first = data['step_type'] == 0
    memory = {name: data[name][:, 0] for name in cores.memory_specs(size)}
    predicted = network.unroll(state.params, observation, first, memory).value
    values = normalization.denormalize(state.values, predicted)
    advantage = advantages(values, data, config.discount, config.trace_decay)
    target, params, valued = values[:, :-1] + advantage, state.params, state.values
    if config.normalize_values:
      valued = normalization.extend(valued, target, mask, _REMEMBERED * mask.size)
      value = normalization.popart(params['value'], state.values, valued)
      params = {**params, 'value': value}
    if config.normalize_advantages:
      batch_of = normalization.extend(normalization.empty(()), advantage, mask)
      advantage = normalization.normalize(batch_of, advantage)
    rollouts = Rollouts(
      observation=observation[:, :-1],
      first=first[:, :-1],
      memory=memory,
      action=data['action'] if bounds is None else data['drawn'],
      log_prob=data['log_prob'],
      advantage=advantage,
      value=normalization.normalize(valued, values[:, :-1]),
      target=normalization.normalize(valued, target),
      mask=mask,
    )
    state = state._replace(params=params, observations=seen, values=valued)
    return state, single_steps(rollouts) if size is None else rollouts

  def update(state: PPOState, batch: Batch) -> tuple[PPOState, Metrics]:
    def step(learnt: _Learnt, minibatch: Rollouts) -> tuple[_Learnt, Metrics]:
      params, opt_state = learnt
      gradients, metrics = gradients_of(params, minibatch)
      updates, opt_state = optimizer.update(gradients, opt_state, params)
      metrics = {**metrics, 'gradient_norm': optax.global_norm(gradients)}
      return (optax.apply_updates(params, updates), opt_state), metrics

    lag = policy_lag(state.steps, batch)
    state, rollouts = rollouts_of(state, batch)
    key, shuffling = jax.random.split(state.key)
    (params, opt_state), metrics = epochs(
      step,
      (state.params, state.opt_state),
      rollouts,
      shuffling,
      num_epochs=config.num_epochs,
      num_minibatches=config.num_minibatches,
    )
    metrics = {**jax.tree.map(jnp.mean, metrics), 'policy_lag': lag}
    state = state._replace(
      params=params, opt_state=opt_state, key=key, steps=state.steps + 1
    )
    return state, metrics

  def policy(
    params: PPOParams, carry: Memory, observation: jax.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, dict[str, jax.Array]]:
    seen = normal(params.observations, observation)
    predicted, memory = network.step(params.network, seen, carry)
    drawn = predicted.policy.sample(key)
    extras = {
      **carry,
      'log_prob': predicted.policy.log_prob(drawn),
      'version': jnp.full(drawn.shape[:1], params.version),
    }
    if bounds is not None:
      extras['drawn'] = drawn
    return to_environment(drawn), memory, extras

  def evaluation_policy(
    params: PPOParams, carry: Memory, observation: jax.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, tuple[()]]:
    seen = normal(params.observations, observation)
    predicted, memory = network.step(params.network, seen, carry)
    return to_environment(predicted.policy.mode()), memory, ()

  writes, table = rollout_table(
    EnvironmentSpec(spec.observation, action),
    config.rollout_length,
    config.queue_size,
    num_stacked=config.num_stacked,
    lstm_size=size,
    extras={} if bounds is None else {'drawn': specs.Array((bounds.size,), np.float32)},
  )
  return Agent(
    name='ppo',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: PPOParams(state.params, state.observations, state.steps),
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=functools.partial(cores.initial, size),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
    on_policy=True,
  )
