"""SAC, soft actor-critic, with an automatic temperature.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications",
https://arxiv.org/abs/1812.05905. `sac_discrete` is its form for discrete actions.

Where this file deviates: policy, critics and temperature take their steps at the same
time, of one optimizer, and not one after the other; targets may sum up several rewards
(`n_step`), whose entropies are left out; networks are smaller, for small problems.
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
import optax

from callsheet.agents import checks, networks
from callsheet.agents.actions import Bounds
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
from callsheet.agents.critics import critics, td_errors
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.squashed import SquashedGaussian, squashed_gaussian
from callsheet.agents.step_tables import transition_table

TABLE = 'transitions'


# Config.


@dataclass(frozen=True)
class SACConfig:
  """What can be chosen; the defaults solve Pendulum-v1.

  Attributes:
    num_stacked: frames in an observation along its last axis, the newest last.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the dense layers, see `networks.torso`; policy and
      critics have one each.
    hidden_sizes: of the dense layers of the policy, and of each critic.
    twin: two critics, the lower of whose values counts; else one.
    target_entropy: that the temperature steers the policy to, in nats; None for minus
      the numbers in an action, of which each is in [-1, 1].
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
  n_step: int = 1
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (128, 128)
  twin: bool = True
  target_entropy: float | None = None
  initial_temperature: float = 1.0
  automatic: bool = True
  learning_rate: float = 1e-3
  adam_epsilon: float = 1e-8
  max_gradient_norm: float | None = None
  batch_size: int = 256
  tau: float = 0.005
  samples_per_insert: float | None = 256.0
  min_replay_size: int = 1_000
  max_replay_size: int = 1_000_000

  def __post_init__(self) -> None:
    checks.off_policy(self)
    checks.number(self, 'initial_temperature', 0, zero=False)
    if self.target_entropy is not None:
      checks.number(self, 'target_entropy', -math.inf)


# Networks.


class Networks(NamedTuple):
  """The functions that learner and actors share.

  Attributes:
    policy: of observations `[B, ...]`, a distribution of actions `[B, A]`.
    critics: of observations `[B, ...]` and actions `[B, A]` in [-1, 1], their values
      `[N, B]`.
  """

  policy: hk.Transformed
  critics: hk.Transformed


def _networks(config: SACConfig, size: int, torso: Torso) -> Networks:
  def policy(observation: chex.Array) -> SquashedGaussian:
    dense = hk.nets.MLP(config.hidden_sizes, activate_final=True, name='dense')
    return squashed_gaussian(dense(torso(observation)), size)

  values = critics(torso, config.hidden_sizes, count=2 if config.twin else 1)
  return Networks(
    *(hk.without_apply_rng(hk.transform(each)) for each in (policy, values))
  )


# Loss.


class SACParams(NamedTuple):
  """What is learnt.

  Attributes:
    policy: the policy network's.
    critics: the critics'.
    log_temperature: `[]`.
  """

  policy: Params
  critics: Params
  log_temperature: chex.Array


def temperature_loss(
  log_temperature: chex.Array, log_prob: chex.Array, target_entropy: float
) -> chex.Array:
  """`[]`; going down it, the temperature falls where the entropy is above its target.

  Args:
    log_temperature: `[]`.
    log_prob: `[B]`, of the policy's own actions.
    target_entropy: in nats.
  """
  excess = jax.lax.stop_gradient(jnp.negative(log_prob) - target_entropy)
  loss: chex.Array = jnp.mean(jnp.exp(log_temperature) * excess)
  return loss


def _loss(
  apply: Networks,
  bounds: Bounds,
  target_entropy: float,
  automatic: bool,
  params: SACParams,
  target_critics: Params,
  batch: Batch,
  key: chex.PRNGKey,
) -> tuple[chex.Array, dict[str, chex.Array]]:
  """The sum of three losses, of which each moves its own parameters, and metrics."""
  rlax, data = import_rlax(), batch.data
  observation, next_observation = data['observation'], data['next_observation']
  policy_key, next_key = jax.random.split(key)
  temperature = jax.lax.stop_gradient(jnp.exp(params.log_temperature))

  following = apply.policy.apply(params.policy, next_observation)
  next_action, next_log_prob = following.sample_and_log_prob(next_key)
  next_q = apply.critics.apply(target_critics, next_observation, next_action)
  next_value = jnp.min(next_q, axis=0) - temperature * next_log_prob
  q = apply.critics.apply(params.critics, observation, bounds.to_unit(data['action']))
  errors = td_errors(q, data['reward'], data['discount'], next_value)
  critic_loss = jnp.mean(jnp.sum(rlax.l2_loss(errors), axis=0))

  policy = apply.policy.apply(params.policy, observation)
  action, log_prob = policy.sample_and_log_prob(policy_key)
  fixed = jax.lax.stop_gradient(params.critics)
  value = jnp.min(apply.critics.apply(fixed, observation, action), axis=0)
  policy_loss = jnp.mean(temperature * log_prob - value)

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


class SACState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: what is learnt.
    target_critics: the critics' targets.
    opt_state: the optimizer's.
    key: of the actions that are drawn in updates.
  """

  params: SACParams
  target_critics: Params
  opt_state: optax.OptState
  key: chex.PRNGKey


def sac(
  spec: EnvironmentSpec, config: SACConfig = SACConfig(), *, torso: Torso | None = None
) -> Agent:
  """SAC for continuous actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the dense layers, of policy and critics each: a
      haiku function, observations `[B, ...]` as the environment gives them to features
      `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't continuous, or have no bounds, or its
      observations don't fit the torso.
  """
  bounds = Bounds.of('sac', spec)
  taken = networks.torso('sac', spec.observation, config.torso, (), torso)
  apply = _networks(config, bounds.size, taken)
  target_entropy = config.target_entropy
  if target_entropy is None:
    target_entropy = -float(bounds.size)
  loss = functools.partial(_loss, apply, bounds, target_entropy, config.automatic)
  gradients_and_metrics = jax.grad(loss, has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def init(key: chex.PRNGKey) -> SACState:
    policy_key, critics_key, key = jax.random.split(key, 3)
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    params = SACParams(
      policy=apply.policy.init(policy_key, observation),
      critics=apply.critics.init(critics_key, observation, jnp.zeros((1, bounds.size))),
      log_temperature=jnp.log(jnp.float32(config.initial_temperature)),
    )
    return SACState(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      target_critics=jax.tree.map(jnp.copy, params.critics),
      opt_state=optimizer.init(params),
      key=key,
    )

  def update(state: SACState, batch: Batch) -> tuple[SACState, Metrics]:
    key, loss_key = jax.random.split(state.key)
    gradients, metrics = gradients_and_metrics(
      state.params, state.target_critics, batch, loss_key
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_critics = optax.incremental_update(
      params.critics, state.target_critics, config.tau
    )
    metrics = {**metrics, 'gradient_norm': optax.global_norm(gradients)}
    return SACState(params, target_critics, opt_state, key), metrics

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    unit = apply.policy.apply(params, observation).sample(key)
    return bounds.from_unit(unit), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    unit = apply.policy.apply(params, observation).mode()
    return bounds.from_unit(unit), carry, ()

  writes = NStep(TABLE, config.n_step, config.discount, config.num_stacked)
  table = transition_table(
    EnvironmentSpec(spec.observation, bounds.spec),
    writes,
    config.max_replay_size,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name='sac',
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
