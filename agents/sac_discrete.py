"""SAC for discrete actions, with an automatic temperature.

Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings",
https://arxiv.org/abs/1910.07207. What the loss of `sac` estimates from one action, this
one sums up over all of them.

Where this file deviates: policy, critics and temperature take their steps at the same
time, of one optimizer; targets follow by Polyak averages, and not by a copy now and
then; targets may sum up several rewards (`n_step`), whose entropies are left out; the
policy is steered to less entropy than the paper's 0.98 of the most there is, which
leaves it little to decide; networks are smaller, for small problems.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

from callsheet.agents import checks, networks
from callsheet.agents.base import (
  Agent,
  Batch,
  EnvironmentSpec,
  Limiter,
  Metrics,
  NStep,
  Params,
  Sampling,
)
from callsheet.agents.critics import td_errors
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.sac import SACParams, temperature_loss
from callsheet.agents.step_tables import transition_table

TABLE = 'transitions'


# Config.


@dataclass(frozen=True)
class DiscreteSACConfig:
  """What can be chosen; the defaults solve CartPole-v1.

  Attributes:
    num_stacked: frames in an observation along its last axis, the newest last; 4 for
      Atari as it is usually wrapped.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the dense layers, see `networks.torso`; policy and
      critics have one each.
    hidden_sizes: of the dense layers of the policy, and of each critic.
    twin: two critics, the lower of whose values counts; else one.
    entropy_share: that the temperature steers the policy to, of the entropy of choosing
      evenly.
    initial_temperature: what a nat of entropy is worth in rewards, in the beginning.
    automatic: whether the temperature is learnt; else it stays.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    batch_size: transitions in one update.
    tau: the share of the critics that their targets take over in each update.
    samples_per_insert: how often a transition is sampled on average; None for no bound.
    min_replay_size: transitions before the first update.
    max_replay_size: transitions held.

  Raises:
    UsageError: a value out of its range.
  """

  num_stacked: int = 1
  n_step: int = 3
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  twin: bool = True
  entropy_share: float = 0.3
  initial_temperature: float = 1.0
  automatic: bool = True
  learning_rate: float = 1e-3
  adam_epsilon: float = 1e-8
  max_gradient_norm: float | None = None
  batch_size: int = 128
  tau: float = 0.01
  samples_per_insert: float | None = 32.0
  min_replay_size: int = 1_000
  max_replay_size: int = 100_000

  def __post_init__(self) -> None:
    checks.off_policy(self)
    checks.number(self, 'entropy_share', 0, 1)
    checks.number(self, 'initial_temperature', 0, zero=False)


# Networks.


class Networks(NamedTuple):
  """The functions that learner and actors share.

  Attributes:
    policy: of observations `[B, ...]`, logits `[B, A]`.
    critics: of observations `[B, ...]`, values `[N, B, A]`.
  """

  policy: hk.Transformed
  critics: hk.Transformed


def _networks(config: DiscreteSACConfig, num_actions: int, torso: Torso) -> Networks:
  def head(features: chex.Array, name: str) -> chex.Array:
    outputs: chex.Array = hk.nets.MLP([*config.hidden_sizes, num_actions], name=name)(
      features
    )
    return outputs

  def policy(observation: chex.Array) -> chex.Array:
    return head(torso(observation), 'policy')

  def critics(observation: chex.Array) -> chex.Array:
    features = torso(observation)
    count = 2 if config.twin else 1
    return jnp.stack([head(features, f'critic_{i}') for i in range(count)])

  return Networks(
    *(hk.without_apply_rng(hk.transform(each)) for each in (policy, critics))
  )


# Loss.


def _loss(
  apply: Networks,
  target_entropy: float,
  automatic: bool,
  params: SACParams,
  target_critics: Params,
  batch: Batch,
) -> tuple[chex.Array, dict[str, chex.Array]]:
  """The sum of three losses, of which each moves its own parameters, and metrics."""
  rlax, data = import_rlax(), batch.data
  observation, next_observation = data['observation'], data['next_observation']
  temperature = jax.lax.stop_gradient(jnp.exp(params.log_temperature))

  next_log_policy = jax.nn.log_softmax(
    apply.policy.apply(params.policy, next_observation)
  )
  next_q = jnp.min(apply.critics.apply(target_critics, next_observation), axis=0)
  next_value = jnp.sum(
    jnp.exp(next_log_policy) * (next_q - temperature * next_log_policy), axis=-1
  )
  all_q = apply.critics.apply(params.critics, observation)
  index = jnp.expand_dims(data['action'], (0, 2))
  q = jnp.take_along_axis(all_q, index, axis=-1)[..., 0]
  errors = td_errors(q, data['reward'], data['discount'], next_value)
  critic_loss = jnp.mean(jnp.sum(rlax.l2_loss(errors), axis=0))

  log_policy = jax.nn.log_softmax(apply.policy.apply(params.policy, observation))
  policy = jnp.exp(log_policy)
  value = jax.lax.stop_gradient(jnp.min(all_q, axis=0))
  policy_loss = jnp.mean(jnp.sum(policy * (temperature * log_policy - value), axis=-1))

  log_prob = jnp.sum(policy * log_policy, axis=-1)
  loss = critic_loss + policy_loss
  if automatic:
    loss += temperature_loss(params.log_temperature, log_prob, target_entropy)
  return loss, {
    'loss': loss,
    'critic_loss': critic_loss,
    'policy_loss': policy_loss,
    'q': jnp.mean(q),
    'entropy': -jnp.mean(log_prob),
    'temperature': temperature,
  }


# Assembly.


class DiscreteSACState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: what is learnt.
    target_critics: the critics' targets.
    opt_state: the optimizer's.
  """

  params: SACParams
  target_critics: Params
  opt_state: optax.OptState


def sac_discrete(
  spec: EnvironmentSpec,
  config: DiscreteSACConfig = DiscreteSACConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """SAC for discrete actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the dense layers, of policy and critics each: a
      haiku function, observations `[B, ...]` as the environment gives them to features
      `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't discrete, or its observations don't fit
      the torso.
  """
  num_actions = checks.num_actions('sac_discrete', spec)
  taken = networks.torso('sac_discrete', spec.observation, config.torso, (), torso)
  apply = _networks(config, num_actions, taken)
  target_entropy = config.entropy_share * math.log(num_actions)
  loss = functools.partial(_loss, apply, target_entropy, config.automatic)
  gradients_and_metrics = jax.grad(loss, has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def init(key: chex.PRNGKey) -> DiscreteSACState:
    policy_key, critics_key = jax.random.split(key)
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    params = SACParams(
      policy=apply.policy.init(policy_key, observation),
      critics=apply.critics.init(critics_key, observation),
      log_temperature=jnp.log(jnp.float32(config.initial_temperature)),
    )
    return DiscreteSACState(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      target_critics=jax.tree.map(jnp.copy, params.critics),
      opt_state=optimizer.init(params),
    )

  def update(state: DiscreteSACState, batch: Batch) -> tuple[DiscreteSACState, Metrics]:
    gradients, metrics = gradients_and_metrics(
      state.params, state.target_critics, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_critics = optax.incremental_update(
      params.critics, state.target_critics, config.tau
    )
    metrics = {**metrics, 'gradient_norm': optax.global_norm(gradients)}
    return DiscreteSACState(params, target_critics, opt_state), metrics

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    action = jax.random.categorical(key, apply.policy.apply(params, observation))
    return action.astype(jnp.int32), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    action = jnp.argmax(apply.policy.apply(params, observation), axis=-1)
    return action.astype(jnp.int32), carry, ()

  writes = NStep(TABLE, config.n_step, config.discount, config.num_stacked)
  table = transition_table(
    EnvironmentSpec(spec.observation, specs.DiscreteArray(num_actions, np.int32)),
    writes,
    config.max_replay_size,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name='sac_discrete',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params.policy,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
