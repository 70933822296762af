"""D4PG: distributed distributional deterministic policy gradients.

Barth-Maron et al. 2018, https://arxiv.org/abs/1804.08617: DDPG with a critic that gives
the distribution of the return on a fixed support, after Bellemare et al. 2017 (C51),
https://arxiv.org/abs/1707.06887, with returns of several steps, with many actors, and,
if `prioritized`, with a replay that draws by the critic's loss.

Where this file deviates: targets follow by Polyak averages, and not by a copy now and
then; policy and critic take their steps at the same time, of one optimizer; actors act
at random until the first update; networks are smaller and learning rates larger, for
small problems.
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
from callsheet.agents.critics import critics
from callsheet.agents.deterministic import deterministic, explore, next_noise
from callsheet.agents.dqn import importance_weights
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.step_tables import transition_table

TABLE = 'transitions'


# Config.


@dataclass(frozen=True)
class D4PGConfig:
  """What can be chosen; the defaults suit rewards in [0, 1], such as dm_control's.

  Attributes:
    num_stacked: frames in an observation along its last axis, the newest last.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the dense layers, see `networks.torso`; policy and
      critic have one each.
    hidden_sizes: of the dense layers of the policy, and of the critic.
    num_atoms: of the return's distribution, at even distances.
    v_min: the lowest of them; returns below it count as this.
    v_max: the highest; returns above it count as this.
    exploration: the deviation of the noise on the actors' actions in [-1, 1].
    prioritized: sample by the critic's loss, with importance weights; else uniformly.
    priority_exponent: Schaul's alpha; 0 samples uniformly.
    importance_exponent: Schaul's beta; 1 corrects the sampling's bias wholly.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    batch_size: transitions in one update.
    tau: the share of the networks that their targets take over in each update.
    samples_per_insert: how often a transition is sampled on average; None for no bound.
    min_replay_size: transitions before the first update.
    max_replay_size: transitions held.

  Raises:
    UsageError: a value out of its range.
  """

  num_stacked: int = 1
  n_step: int = 5
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (128, 128)
  num_atoms: int = 51
  v_min: float = 0.0
  v_max: float = 100.0
  exploration: float = 0.2
  prioritized: bool = False
  priority_exponent: float = 0.6
  importance_exponent: float = 0.4
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
    checks.integer(self, 'num_atoms', 2)
    for name in ('v_min', 'v_max'):
      checks.number(self, name, -float('inf'))
    if self.v_min >= self.v_max:
      checks.refuse(self, 'v_min', f'a number below v_max, {self.v_max}')
    for name in ('exploration', 'priority_exponent'):
      checks.number(self, name, 0)
    checks.number(self, 'importance_exponent', 0, 1)


# Networks.


class Networks(NamedTuple):
  """The functions that learner and actors share.

  Attributes:
    policy: of observations `[B, ...]`, actions `[B, A]` in [-1, 1].
    critic: of observations `[B, ...]` and such actions, logits `[1, B, num_atoms]`.
  """

  policy: hk.Transformed
  critic: hk.Transformed


def _networks(config: D4PGConfig, size: int, torso: Torso) -> Networks:
  def policy(observation: chex.Array) -> chex.Array:
    dense = hk.nets.MLP(config.hidden_sizes, activate_final=True, name='dense')
    return deterministic(dense(torso(observation)), size)

  logits = critics(torso, config.hidden_sizes, count=1, outputs=config.num_atoms)
  return Networks(
    *(hk.without_apply_rng(hk.transform(each)) for each in (policy, logits))
  )


# Loss.


class D4PGParams(NamedTuple):
  """The networks' parameters, or their targets'."""

  policy: Params
  critic: Params


def _loss(
  config: D4PGConfig,
  apply: Networks,
  bounds: Bounds,
  params: D4PGParams,
  targets: D4PGParams,
  batch: Batch,
) -> tuple[chex.Array, tuple[dict[str, chex.Array], chex.Array]]:
  """The sum of two losses, of which each moves its own parameters; metrics; and each
  transition's cross-entropy `[B]`."""
  rlax, data = import_rlax(), batch.data
  observation, next_observation = data['observation'], data['next_observation']
  atoms = jnp.linspace(config.v_min, config.v_max, config.num_atoms)

  next_action = apply.policy.apply(targets.policy, next_observation)
  [next_logits] = apply.critic.apply(targets.critic, next_observation, next_action)
  action = bounds.to_unit(data['action'])
  [logits] = apply.critic.apply(params.critic, observation, action)
  losses = jax.vmap(rlax.categorical_td_learning, (None, 0, 0, 0, None, 0))(
    atoms, logits, data['reward'], data['discount'], atoms, next_logits
  )
  weighted = losses
  if config.prioritized:
    weighted *= importance_weights(
      batch.probabilities, batch.table_size, config.importance_exponent
    )
  critic_loss = jnp.mean(weighted)

  fixed = jax.lax.stop_gradient(params.critic)
  own_action = apply.policy.apply(params.policy, observation)
  [own_logits] = apply.critic.apply(fixed, observation, own_action)
  value = jnp.mean(jax.nn.softmax(own_logits) @ atoms)
  metrics: dict[str, chex.Array] = {'critic_loss': critic_loss, 'q': value}
  return critic_loss - value, (metrics, losses)


# Assembly.


class D4PGState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: what is learnt.
    targets: the targets of both.
    opt_state: the optimizer's.
    steps: updates so far, `[]` int32.
  """

  params: D4PGParams
  targets: D4PGParams
  opt_state: optax.OptState
  steps: chex.Array


def d4pg(
  spec: EnvironmentSpec,
  config: D4PGConfig = D4PGConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """D4PG for continuous actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the dense layers, of policy and critic each: a
      haiku function, observations `[B, ...]` as the environment gives them to features
      `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't continuous, or have no bounds, or its
      observations don't fit the torso.
  """
  bounds = Bounds.of('d4pg', spec)
  taken = networks.torso('d4pg', spec.observation, config.torso, (), torso)
  apply = _networks(config, bounds.size, taken)
  loss = functools.partial(_loss, config, apply, bounds)
  loss_and_gradients = jax.value_and_grad(loss, has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def init(key: chex.PRNGKey) -> D4PGState:
    policy_key, critic_key = jax.random.split(key)
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    params = D4PGParams(
      policy=apply.policy.init(policy_key, observation),
      critic=apply.critic.init(critic_key, observation, jnp.zeros((1, bounds.size))),
    )
    return D4PGState(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      targets=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      steps=jnp.zeros((), jnp.int32),
    )

  def update(state: D4PGState, batch: Batch) -> tuple[D4PGState, Metrics]:
    (value, (metrics, losses)), gradients = loss_and_gradients(
      state.params, state.targets, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    targets = optax.incremental_update(params, state.targets, config.tau)
    norm = optax.global_norm(gradients)
    metrics = {'loss': value, **metrics, 'gradient_norm': norm}
    if config.prioritized:
      # Never zero: an item with no error once must stay possible to draw.
      metrics['priorities'] = losses + 1e-6
    return D4PGState(params, targets, opt_state, state.steps + 1), metrics

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    noise_key, random_key = jax.random.split(key)
    unit = apply.policy.apply(params[0], observation)
    noise = next_noise(jnp.zeros_like(unit), noise_key, config.exploration, 0.0)
    unit = explore(unit, noise, params[1], random_key)
    return bounds.from_unit(unit), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return bounds.from_unit(apply.policy.apply(params[0], observation)), carry, ()

  writes = NStep(TABLE, config.n_step, config.discount, config.num_stacked)
  table = transition_table(
    EnvironmentSpec(spec.observation, bounds.spec),
    writes,
    config.max_replay_size,
    sampler='prioritized' if config.prioritized else 'uniform',
    priority_exponent=config.priority_exponent,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name='d4pg',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: (state.params.policy, state.steps),
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
