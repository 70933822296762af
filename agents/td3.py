"""TD3, and DDPG, of which it is made, as a preset.

- Twin delayed deep deterministic policy gradient: Fujimoto et al. 2018,
  https://arxiv.org/abs/1802.09477
- `ddpg`: Lillicrap et al. 2015, https://arxiv.org/abs/1509.02971: one critic, no delay,
  no smoothing, and noise that is correlated in time.

Where this file deviates: actors act at random until the first update, and not for a
number of steps; targets may sum up several rewards (`n_step`); networks are smaller and
learning rates larger, for small problems; DDPG has TD3's initialization, and neither
weight decay nor batch normalization.
"""

from __future__ import annotations

import dataclasses
import functools
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
from callsheet.agents.deterministic import deterministic, explore, next_noise
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.step_tables import transition_table

TABLE = 'transitions'


# Config.


@dataclass(frozen=True)
class TD3Config:
  """What can be chosen; the defaults solve Pendulum-v1. Noise is that of actions in
  [-1, 1].

  Attributes:
    num_stacked: frames in an observation along its last axis, the newest last.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the dense layers, see `networks.torso`; policy and
      critics have one each.
    hidden_sizes: of the dense layers of the policy, and of each critic.
    twin: two critics, the lower of whose values counts; else one.
    policy_delay: updates of the critics for one of the policy and of all targets.
    smoothing: the deviation of the noise on the target policy's actions.
    smoothing_clip: that noise is clipped to it.
    exploration: the deviation of the noise on the actors' actions.
    exploration_correlation: of that noise from one step to the next, in [0, 1).
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the norm of the critics' gradient, and that of the policy's, is
      clipped to it; None for no clipping.
    batch_size: transitions in one update.
    tau: the share of the networks that their targets take over with each update.
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
  policy_delay: int = 2
  smoothing: float = 0.2
  smoothing_clip: float = 0.5
  exploration: float = 0.1
  exploration_correlation: float = 0.0
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
    checks.integer(self, 'policy_delay', 1)
    for name in ('smoothing', 'smoothing_clip', 'exploration'):
      checks.number(self, name, 0)
    checks.number(self, 'exploration_correlation', 0, 0.999)


@dataclass(frozen=True)
class DDPGConfig(TD3Config):
  """What makes DDPG of it; all is as in `TD3Config` but these defaults."""

  twin: bool = False
  policy_delay: int = 1
  smoothing: float = 0.0
  exploration: float = 0.2
  exploration_correlation: float = 0.85


# Networks.


class Networks(NamedTuple):
  """The functions that learner and actors share.

  Attributes:
    policy: of observations `[B, ...]`, actions `[B, A]` in [-1, 1].
    critics: of observations `[B, ...]` and such actions, their values `[N, B]`.
  """

  policy: hk.Transformed
  critics: hk.Transformed


def _networks(config: TD3Config, size: int, torso: Torso) -> Networks:
  def policy(observation: chex.Array) -> chex.Array:
    dense = hk.nets.MLP(config.hidden_sizes, activate_final=True, name='dense')
    return deterministic(dense(torso(observation)), size)

  values = critics(torso, config.hidden_sizes, count=2 if config.twin else 1)
  return Networks(
    *(hk.without_apply_rng(hk.transform(each)) for each in (policy, values))
  )


# Losses.


class TD3Params(NamedTuple):
  """The networks' parameters, or their targets'."""

  policy: Params
  critics: Params


def _critic_loss(
  config: TD3Config,
  apply: Networks,
  bounds: Bounds,
  params: Params,
  targets: TD3Params,
  batch: Batch,
  key: chex.PRNGKey,
) -> tuple[chex.Array, chex.Array]:
  """The loss `[]` of the critics' parameters, and the mean of their values `[]`."""
  rlax, data = import_rlax(), batch.data
  next_observation = data['next_observation']
  next_action = apply.policy.apply(targets.policy, next_observation)
  noise = config.smoothing * jax.random.normal(key, next_action.shape)
  noise = jnp.clip(noise, -config.smoothing_clip, config.smoothing_clip)
  next_action = jnp.clip(next_action + noise, -1, 1)
  next_q = apply.critics.apply(targets.critics, next_observation, next_action)
  action = bounds.to_unit(data['action'])
  q = apply.critics.apply(params, data['observation'], action)
  errors = td_errors(q, data['reward'], data['discount'], jnp.min(next_q, axis=0))
  return jnp.mean(jnp.sum(rlax.l2_loss(errors), axis=0)), jnp.mean(q)


def _policy_loss(
  apply: Networks, params: Params, critics_params: Params, batch: Batch
) -> chex.Array:
  """Minus the first critic's value of the policy's actions, `[]`."""
  observation = batch.data['observation']
  action = apply.policy.apply(params, observation)
  value = apply.critics.apply(critics_params, observation, action)[0]
  return -jnp.mean(value)


# Assembly.


class TD3State(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: what is learnt.
    targets: the targets of both.
    policy_opt_state: the policy's optimizer's.
    critics_opt_state: the critics' optimizer's.
    steps: updates so far, `[]` int32.
    key: of the noise in updates.
  """

  params: TD3Params
  targets: TD3Params
  policy_opt_state: optax.OptState
  critics_opt_state: optax.OptState
  steps: chex.Array
  key: chex.PRNGKey


def td3(
  spec: EnvironmentSpec, config: TD3Config = TD3Config(), *, torso: Torso | None = None
) -> Agent:
  """TD3 for continuous actions.

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
  return _make('td3', spec, config, torso)


def ddpg(
  spec: EnvironmentSpec,
  config: DDPGConfig = DDPGConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """DDPG for continuous actions; see `td3`."""
  return _make('ddpg', spec, config, torso)


def _make(
  name: str, spec: EnvironmentSpec, config: TD3Config, torso: Torso | None
) -> Agent:
  bounds = Bounds.of(name, spec)
  taken = networks.torso(name, spec.observation, config.torso, (), torso)
  apply = _networks(config, bounds.size, taken)
  critic_gradients = jax.value_and_grad(
    functools.partial(_critic_loss, config, apply, bounds), has_aux=True
  )
  policy_gradients = jax.value_and_grad(functools.partial(_policy_loss, apply))
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def init(key: chex.PRNGKey) -> TD3State:
    policy_key, critics_key, key = jax.random.split(key, 3)
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    params = TD3Params(
      policy=apply.policy.init(policy_key, observation),
      critics=apply.critics.init(critics_key, observation, jnp.zeros((1, bounds.size))),
    )
    return TD3State(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      targets=jax.tree.map(jnp.copy, params),
      policy_opt_state=optimizer.init(params.policy),
      critics_opt_state=optimizer.init(params.critics),
      steps=jnp.zeros((), jnp.int32),
      key=key,
    )

  def update(state: TD3State, batch: Batch) -> tuple[TD3State, Metrics]:
    key, noise_key = jax.random.split(state.key)
    old = state.params
    (critic_loss, q), gradients = critic_gradients(
      old.critics, state.targets, batch, noise_key
    )
    updates, critics_opt_state = optimizer.update(gradients, state.critics_opt_state)
    new_critics = optax.apply_updates(old.critics, updates)
    steps = state.steps + 1

    def delayed() -> tuple[Params, TD3Params, optax.OptState]:
      _, gradients = policy_gradients(old.policy, new_critics, batch)
      updates, opt_state = optimizer.update(gradients, state.policy_opt_state)
      policy = optax.apply_updates(old.policy, updates)
      params = TD3Params(policy, new_critics)
      targets = optax.incremental_update(params, state.targets, config.tau)
      return policy, targets, opt_state

    policy_params, targets, policy_opt_state = jax.lax.cond(
      steps % config.policy_delay == 0,
      delayed,
      lambda: (old.policy, state.targets, state.policy_opt_state),
    )
    metrics = {
      'loss': critic_loss,
      'q': q,
      'gradient_norm': optax.global_norm(gradients),
    }
    params = TD3Params(policy_params, new_critics)
    opt_states = policy_opt_state, critics_opt_state
    return TD3State(params, targets, *opt_states, steps, key), metrics

  def policy(
    params: Params, carry: chex.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    noise_key, random_key = jax.random.split(key)
    noise = next_noise(
      carry, noise_key, config.exploration, config.exploration_correlation
    )
    unit = apply.policy.apply(params[0], observation)
    unit = explore(unit, noise, params[1], random_key)
    return bounds.from_unit(unit), noise, ()

  def evaluation_policy(
    params: Params, carry: chex.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    return bounds.from_unit(apply.policy.apply(params[0], observation)), carry, ()

  writes = NStep(TABLE, config.n_step, config.discount, config.num_stacked)
  table = transition_table(
    EnvironmentSpec(spec.observation, bounds.spec),
    writes,
    config.max_replay_size,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name=name,
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: (state.params.policy, state.steps),
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: jnp.zeros((num_environments, bounds.size)),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
