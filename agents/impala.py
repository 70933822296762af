"""IMPALA: actors play rollouts, the learner corrects for their being a little behind.

- Importance weighted actor-learner architectures and V-trace: Espeholt et al. 2018,
  https://arxiv.org/abs/1802.01561

Where this file deviates: Adam unless `optimizer` says 'rmsprop', and a constant
learning rate; the actor writes the log-probability of its action, which is all that
V-trace needs, and not its logits; losses are means over the steps of a batch, not sums;
an LSTM gets neither the last action nor the last reward; no population based training.
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

from callsheet.agents import checks, cores, networks
from callsheet.agents.actor_critic import (
  ActorCritic,
  actor_critic,
  categorical_head,
  rows,
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
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.rollouts import (
  TABLE,
  masked_mean,
  policy_lag,
  rollout_table,
  trace_decays,
)

_OPTIMIZERS = ('adam', 'rmsprop')


# Config.


@dataclass(frozen=True)
class IMPALAConfig:
  """What can be chosen; the defaults are for small problems with vector observations.

  Attributes:
    unroll_length: L, steps of a rollout.
    batch_size: rollouts in one update.
    queue_size: rollouts that may wait for the learner.
    discount: per step, in (0, 1].
    trace_decay: lambda of V-trace, in [0, 1].
    clip_rho: where importance weights are cut off in the value's targets.
    clip_policy_rho: where they are in the policy's gradient.
    value_cost: weight of the value's loss.
    entropy_cost: weight of the policy's entropy, which is held up.
    max_abs_reward: rewards are clipped to it; None for no clipping.
    num_stacked: frames in an observation along its last axis, the newest last.
    torso: the kind of network below the heads, see `networks.torso`.
    hidden_sizes: of the torso's dense layers.
    shared_torso: policy and value have one together; always so with an LSTM.
    lstm_size: of an LSTM between torso and heads; None for none.
    optimizer: 'adam' or 'rmsprop'.
    learning_rate: the optimizer's.
    optimizer_epsilon: the optimizer's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    evaluation_greedy: evaluation takes the likeliest action; else it draws one, as
      acting does. In Atari some games only begin at an action that is seldom likeliest.

  Raises:
    UsageError: a value out of its range.
  """

  unroll_length: int = 16
  batch_size: int = 32
  queue_size: int = 32
  discount: float = 0.99
  trace_decay: float = 1.0
  clip_rho: float = 1.0
  clip_policy_rho: float = 1.0
  value_cost: float = 0.5
  entropy_cost: float = 0.01
  max_abs_reward: float | None = None
  num_stacked: int = 1
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  shared_torso: bool = False
  lstm_size: int | None = None
  optimizer: str = 'adam'
  learning_rate: float = 2e-3
  optimizer_epsilon: float = 1e-5
  max_gradient_norm: float | None = 1.0
  evaluation_greedy: bool = True

  def __post_init__(self) -> None:
    for name in ('unroll_length', 'batch_size', 'queue_size', 'num_stacked'):
      checks.integer(self, name, 1)
    if self.lstm_size is not None:
      checks.integer(self, 'lstm_size', 1)
    for name in ('value_cost', 'entropy_cost', 'optimizer_epsilon'):
      checks.number(self, name, 0)
    checks.number(self, 'trace_decay', 0, 1)
    checks.number(self, 'discount', 0, 1, zero=False)
    for name in ('clip_rho', 'clip_policy_rho', 'learning_rate'):
      checks.number(self, name, 0, zero=False)
    for name in ('max_abs_reward', 'max_gradient_norm'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    if any(not isinstance(size, int) or size < 1 for size in self.hidden_sizes):
      checks.refuse(self, 'hidden_sizes', 'positive integers')
    if self.optimizer not in _OPTIMIZERS:
      checks.refuse(self, 'optimizer', ' or '.join(map(repr, _OPTIMIZERS)))


# Loss.


def _loss(
  config: IMPALAConfig, network: ActorCritic, params: Params, batch: Batch
) -> tuple[jax.Array, Metrics]:
  """The loss `[]`, and what it is made of.

  Args:
    config: what can be chosen.
    network: policy and value.
    params: the network's.
    batch: see `Batch`; the columns are those of `Sequences`.
  """
  rlax = import_rlax()
  data: dict[str, jax.Array] = jax.tree.map(jnp.asarray, dict(batch.data))
  mask = data['mask']
  memory = {name: data[name][:, 0] for name in cores.memory_specs(config.lstm_size)}
  first = data['step_type'] == 0
  predicted = network.unroll(params, data['observation'], first, memory)
  policy, values = rows(predicted, slice(-1)).policy, predicted.value
  log_prob = policy.log_prob(data['action'])
  # Where there is no step the replay has no log-probability.
  ratio = jnp.exp(jnp.where(mask, log_prob - data['log_prob'], 0.0))
  reward = data['reward']
  if config.max_abs_reward is not None:
    reward = jnp.clip(reward, -config.max_abs_reward, config.max_abs_reward)
  vtrace = functools.partial(
    rlax.vtrace_td_error_and_advantage,
    clip_rho_threshold=config.clip_rho,
    clip_pg_rho_threshold=config.clip_policy_rho,
  )
  returns = jax.vmap(vtrace)(
    values[:, :-1],
    values[:, 1:],
    reward,
    config.discount * data['discount'],
    jax.lax.stop_gradient(ratio),
    trace_decays(mask, config.trace_decay),
  )
  advantage = jax.lax.stop_gradient(returns.pg_advantage)
  policy_loss = masked_mean(-log_prob * advantage, mask)
  value_loss = masked_mean(0.5 * returns.errors**2, mask)
  entropy = masked_mean(policy.entropy(), mask)
  loss = policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy
  return loss, {
    'loss': loss,
    'policy_loss': policy_loss,
    'value_loss': value_loss,
    'entropy': entropy,
    'value': masked_mean(values[:, :-1], mask),
    'importance': masked_mean(ratio, mask),
  }


# Assembly.


class IMPALAState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: the network's.
    opt_state: the optimizer's.
    steps: updates so far, `[]` int32.
  """

  params: Params
  opt_state: optax.OptState
  steps: jax.Array


class IMPALAParams(NamedTuple):
  """What a policy needs.

  Attributes:
    network: its parameters.
    version: the updates that made them, `[]` int32.
  """

  network: Params
  version: jax.Array


def impala(
  spec: EnvironmentSpec,
  config: IMPALAConfig = IMPALAConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """IMPALA for discrete actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below LSTM and heads: a haiku function, observations
      `[B, ...]` as the environment gives them to features `[B, F]`, that builds its
      modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't discrete, or its observations don't fit
      the torso.
  """
  num_actions = checks.num_actions('impala', spec)
  taken = networks.torso(
    'impala', spec.observation, config.torso, config.hidden_sizes, torso
  )
  head = categorical_head(num_actions)
  network = actor_critic(taken, head, config.lstm_size, config.shared_torso)
  gradients_of = jax.grad(functools.partial(_loss, config, network), has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  optimizer = _optimizer(config)

  def init(key: chex.PRNGKey) -> IMPALAState:
    params = network.init(key, jnp.zeros((1, *spec.observation.shape), dtype))
    return IMPALAState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

  def update(state: IMPALAState, batch: Batch) -> tuple[IMPALAState, Metrics]:
    gradients, metrics = gradients_of(state.params, batch)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      **metrics,
      'policy_lag': policy_lag(state.steps, batch),
      'gradient_norm': optax.global_norm(gradients),
    }
    return IMPALAState(params, opt_state, state.steps + 1), metrics

  def policy(
    params: IMPALAParams, carry: Memory, observation: jax.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, dict[str, jax.Array]]:
    predicted, memory = network.step(params.network, observation, carry)
    action = predicted.policy.sample(key)
    extras = {
      **carry,
      'log_prob': predicted.policy.log_prob(action),
      'version': jnp.full(action.shape, params.version),
    }
    return action, memory, extras

  def evaluation_policy(
    params: IMPALAParams, carry: Memory, observation: jax.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, tuple[()]]:
    predicted, memory = network.step(params.network, observation, carry)
    played = predicted.policy
    return played.mode() if config.evaluation_greedy else played.sample(key), memory, ()

  counted = EnvironmentSpec(
    spec.observation, specs.DiscreteArray(num_actions, np.int32)
  )
  writes, table = rollout_table(
    counted,
    config.unroll_length,
    config.queue_size,
    num_stacked=config.num_stacked,
    lstm_size=config.lstm_size,
  )
  return Agent(
    name='impala',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: IMPALAParams(state.params, state.steps),
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=functools.partial(cores.initial, config.lstm_size),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
    on_policy=True,
  )


def _optimizer(config: IMPALAConfig) -> optax.GradientTransformation:
  rate, epsilon = config.learning_rate, config.optimizer_epsilon
  if config.optimizer == 'adam':
    return clipped(optax.adam(rate, eps=epsilon), config.max_gradient_norm)
  rmsprop = optax.rmsprop(rate, decay=0.99, eps=epsilon)
  return clipped(rmsprop, config.max_gradient_norm)
