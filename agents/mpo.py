"""MPO, and DMPO with a critic that knows the distribution of returns.

- Maximum a posteriori policy optimisation: Abdolmaleki et al. 2018,
  https://arxiv.org/abs/1806.06920, with the decoupled bounds of Abdolmaleki et al.
  2018b, https://arxiv.org/abs/1812.02256. The policy's loss is in `mpo_losses`.
- `distributional`: the categorical critic of Bellemare et al. 2017 (C51),
  https://arxiv.org/abs/1707.06887, with MPO as in Acme (Hoffman et al. 2020,
  https://arxiv.org/abs/2006.00979).

The policy is a Gaussian whose numbers are independent, over actions scaled to [-1, 1].
What it samples is clipped to that: its mean may leave the bounds, from where
`action_penalty` draws it back, unless `tanh_mean` keeps it inside.

Where this file deviates: n-step returns in place of Retrace, as in Acme; they aren't
corrected for the policy that acted. The defaults suit small problems on a CPU: small
networks, few samples, and bounds as loose as few updates need.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from callsheet.agents import mpo_losses, mpo_networks, networks
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
from callsheet.agents.mpo_config import DMPOConfig, MPOConfig
from callsheet.agents.mpo_losses import Bounded, Duals, raw
from callsheet.agents.mpo_networks import expected_values
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.step_tables import step_table

TABLE = 'transitions'

_MPO, _DMPO = MPOConfig(), DMPOConfig()


# Loss.


def critic_losses(
  atoms: chex.Array | None,
  outputs: chex.Array,
  next_outputs: chex.Array,
  reward: chex.Array,
  discount: chex.Array,
) -> chex.Array:
  """Of each transition, `[B]`: half the squared error, or a cross-entropy.

  Args:
    atoms: `[K]`, or None for a critic that isn't distributional.
    outputs: the critic's, of what was done, `[B, K or 1]`.
    next_outputs: the target critic's, of actions that the target policy sampled,
      `[N, B, K or 1]`. The value of the state is their mean, or the return's
      distribution their mixture.
    reward: `[B]`.
    discount: `[B]`.
  """
  rlax = import_rlax()
  if atoms is None:
    values = expected_values(None, outputs)
    next_values = jnp.mean(expected_values(None, next_outputs), axis=0)
    errors = jax.vmap(rlax.td_learning)(values, reward, discount, next_values)
    losses: chex.Array = rlax.l2_loss(errors)
    return losses
  mixture = jax.nn.logsumexp(jax.nn.log_softmax(next_outputs), axis=0)
  learning = jax.vmap(rlax.categorical_td_learning, (None, 0, 0, 0, None, 0))
  losses = learning(atoms, outputs, reward, discount, atoms, mixture)
  return losses


# Assembly.


class Learnt(NamedTuple):
  """What gradients change.

  Attributes:
    policy: the policy's parameters.
    critic: the critic's.
    duals: temperatures and multipliers.
  """

  policy: Params
  critic: Params
  duals: Duals


class MPOState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    learnt: what gradients change.
    target_policy: an older policy, which samples and which the new one stays near.
    target_critic: an older critic, which values.
    opt_state: the optimizer's.
    key: of the sampled actions.
    steps: updates so far, `[]` int32.
  """

  learnt: Learnt
  target_policy: Params
  target_critic: Params
  opt_state: optax.OptState
  key: chex.PRNGKey
  steps: chex.Array


def mpo(
  spec: EnvironmentSpec, config: MPOConfig = _MPO, *, torso: Torso | None = None
) -> Agent:
  """MPO for continuous actions between bounds.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the dense layers, in policy and critic: a haiku
      function, observations `[B, ...]` as the environment gives them to features
      `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't vectors between bounds, or its
      observations don't fit the torso.
  """
  return _agent('mpo', spec, config, torso)


def dmpo(
  spec: EnvironmentSpec,
  config: MPOConfig = _DMPO,
  *,
  torso: Torso | None = None,
) -> Agent:
  """MPO with a distributional critic; see `mpo`."""
  return _agent('dmpo', spec, config, torso)


def _agent(
  name: str, spec: EnvironmentSpec, config: MPOConfig, given: Torso | None
) -> Agent:
  bounds = Bounds.of(name, spec)
  torso = networks.torso(name, spec.observation, config.torso, (), given)
  policy_network = mpo_networks.policy_network(
    torso,
    config.policy_sizes,
    bounds.size,
    layer_norm=config.layer_norm,
    tanh_mean=config.tanh_mean,
    initial_stddev=config.initial_stddev,
    min_stddev=config.min_stddev,
  )
  atoms = _atoms(config)
  critic_network = mpo_networks.critic_network(
    torso,
    config.critic_sizes,
    1 if atoms is None else config.num_atoms,
    layer_norm=config.layer_norm,
  )
  allowed = Bounded(
    config.epsilon, config.epsilon_penalty, config.epsilon_mean, config.epsilon_stddev
  )
  optimizer = _optimizer(config)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)

  def init(key: chex.PRNGKey) -> MPOState:
    policy_key, critic_key, key = jax.random.split(key, 3)
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    learnt = Learnt(
      policy_network.init(policy_key, observation),
      critic_network.init(critic_key, observation, jnp.zeros((1, bounds.size))),
      _initial_duals(config, bounds.size),
    )
    return MPOState(
      learnt=learnt,
      # Copies: all are donated to the first update, which takes no buffer twice.
      target_policy=jax.tree.map(jnp.copy, learnt.policy),
      target_critic=jax.tree.map(jnp.copy, learnt.critic),
      opt_state=optimizer.init(learnt),
      key=key,
      steps=jnp.zeros((), jnp.int32),
    )

  def loss(
    learnt: Learnt, state: MPOState, batch: Batch, key: chex.PRNGKey
  ) -> tuple[chex.Array, Metrics]:
    data = batch.data
    observations = jnp.stack([data['observation'], data['next_observation']])
    # Both at once: here the policy is improved, there it is valued.
    both = observations.reshape(-1, *observations.shape[2:])
    sampling = policy_network.apply(state.target_policy, both)
    actions = sampling.sample(key, config.num_samples)
    outputs = critic_network.apply(state.target_critic, both, actions)
    here, there = jnp.split(outputs, 2, axis=1)
    size = here.shape[1]
    values = expected_values(atoms, here)
    done = critic_network.apply(
      learnt.critic, data['observation'], bounds.to_unit(data['action'])
    )
    critic_loss = jnp.mean(
      critic_losses(atoms, done, there, data['reward'], data['discount'])
    )
    policy_loss, metrics = mpo_losses.policy_loss(
      allowed,
      learnt.duals,
      jax.tree.map(lambda array: array[:size], sampling),
      policy_network.apply(learnt.policy, data['observation']),
      actions[:, :size],
      values,
      penalize=config.action_penalty,
    )
    own = {
      'critic_loss': critic_loss,
      'q': jnp.mean(values),
      'stddev': jnp.mean(sampling.stddev),
    }
    return critic_loss + policy_loss, {**metrics, **own}

  def update(state: MPOState, batch: Batch) -> tuple[MPOState, Metrics]:
    key, sample_key = jax.random.split(state.key)
    gradients_of = jax.value_and_grad(loss, has_aux=True)
    (value, metrics), gradients = gradients_of(state.learnt, state, batch, sample_key)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.learnt)
    learnt = optax.apply_updates(state.learnt, updates)
    steps = state.steps + 1
    target_policy = optax.periodic_update(
      learnt.policy, state.target_policy, steps, config.policy_update_period
    )
    target_critic = optax.periodic_update(
      learnt.critic, state.target_critic, steps, config.critic_update_period
    )
    new = MPOState(learnt, target_policy, target_critic, opt_state, key, steps)
    return new, {'loss': value, **metrics}

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    [action] = policy_network.apply(params, observation).sample(key, 1)
    return bounds.from_unit(action), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    mean = policy_network.apply(params, observation).mean
    return bounds.from_unit(mean), carry, ()

  writes = NStep(TABLE, config.n_step, config.discount)
  shared = step_table(spec, writes, config.max_replay_size)
  table = dataclasses.replace(
    shared,
    # A vector is drawn faster where it is beside the rest of its transition.
    steps=shared.steps if len(spec.observation.shape) > 1 else None,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name=name,
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.learnt.policy,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )


def _atoms(config: MPOConfig) -> chex.Array | None:
  if not config.distributional:
    return None
  return jnp.linspace(config.v_min, config.v_max, config.num_atoms)


def _initial_duals(config: MPOConfig, size: int) -> Duals:
  shape = (size,) if config.per_dimension else ()
  return Duals(
    temperature=raw(config.initial_temperature),
    penalty_temperature=raw(config.initial_penalty_temperature),
    mean=jnp.full(shape, raw(config.initial_multiplier_mean)),
    stddev=jnp.full(shape, raw(config.initial_multiplier_stddev)),
  )


def _optimizer(config: MPOConfig) -> optax.GradientTransformation:
  """Each part of `Learnt` has its own learning rate, and is clipped by itself."""

  def adam(learning_rate: float) -> optax.GradientTransformation:
    return clipped(optax.adam(learning_rate), config.max_gradient_norm)

  return optax.multi_transform(
    {
      'policy': adam(config.policy_learning_rate),
      'critic': adam(config.critic_learning_rate),
      'duals': optax.adam(config.dual_learning_rate),
    },
    Learnt._make(Learnt._fields),
  )
