"""CQL: conservative Q-learning, whose critics are pressed down where there is no data.

- Kumar et al. 2020, "Conservative Q-learning for offline reinforcement learning",
  https://arxiv.org/abs/2006.04779

To the loss of the critics comes `log integral exp Q(s, a) da - Q(s, a_data)`, CQL(H):
on SAC (Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905) for continuous actions,
where that integral is estimated from actions drawn evenly and from the policy; on
double DQN for discrete ones, where it is a sum.

Where this file deviates: one learning rate, and one step of Adam for critics, policy
and temperature together; the penalty's weight is given, not found by a Lagrangian; for
discrete actions two critics of scalar values instead of one of quantiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

from callsheet.agents import checks, networks, transitions
from callsheet.agents.actions import Bounds
from callsheet.agents.base import Agent, Batch, EnvironmentSpec, Metrics, Params
from callsheet.agents.critics import critics as twin
from callsheet.agents.heads import Categorical, discrete_values
from callsheet.agents.networks import Torso
from callsheet.agents.squashed import SquashedGaussian, squashed_gaussian
from callsheet.agents.transitions import Transitions, td_loss

# Config.


@dataclass(frozen=True)
class CQLConfig:
  """What can be chosen.

  Attributes:
    penalty: what the conservative part counts beside the TD errors; 0 is SAC or DQN.
    num_samples: continuous actions drawn evenly, and as many of the policy at both
      ends of a transition.
    entropy_backup: whether the critics count the entropy of what comes next.
    initial_temperature: of the policy's entropy; it adapts to one of -A.
    discount: per step, in (0, 1].
    torso: the kind of networks, see `networks.torso`.
    hidden_sizes: of their dense layers.
    learning_rate: Adam's.
    batch_size: transitions in one update.
    target_rate: how far the target critics go to the critics with each update.

  Raises:
    UsageError: a value out of its range.
  """

  penalty: float = 5.0
  num_samples: int = 4
  entropy_backup: bool = False
  initial_temperature: float = 1.0
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (256, 256)
  learning_rate: float = 3e-4
  batch_size: int = 256
  target_rate: float = 5e-3

  def __post_init__(self) -> None:
    for name in ('batch_size', 'num_samples'):
      checks.integer(self, name, 1)
    checks.number(self, 'penalty', 0)
    for name in ('initial_temperature', 'learning_rate'):
      checks.number(self, name, 0, zero=False)
    for name in ('discount', 'target_rate'):
      checks.number(self, name, 0, 1, zero=False)
    checks.sizes(self, 'hidden_sizes')


# Loss.


def conservative_penalty(
  q: jax.Array, log_density: jax.Array, q_data: jax.Array
) -> jax.Array:
  """`log integral exp Q(s, a) da - Q(s, a_data)`, the mean over `[..., B]`.

  Args:
    q: of N actions each, `[..., N, B]`.
    log_density: with which these were drawn, `[N, B]`; N discrete actions, each once,
      have the density 1 / N.
    q_data: of the dataset's actions, `[..., B]`.
  """
  count = jnp.log(q.shape[-2])
  integral = jax.nn.logsumexp(q - log_density, axis=-2) - count
  return jnp.mean(integral - q_data)


# Assembly.


class CQLState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: of 'critics'; of continuous actions of 'policy', and the 'log_temperature'.
    target_critics: parameters that follow those of the critics.
    opt_state: the optimizer's.
    key: of the next update's samples.
  """

  params: dict[str, Params]
  target_critics: Params
  opt_state: optax.OptState
  key: chex.PRNGKey


class _Parts(NamedTuple):
  """What differs between the kinds of action.

  Attributes:
    init: `key -> params`.
    loss: `(params, target_critics, batch, key) -> (loss, metrics)`.
    acting: which of the parameters the policies take, by name.
    act: `(params, observation, key) -> action`.
    act_greedily: `(params, observation) -> action`.
  """

  init: Callable[[chex.PRNGKey], dict[str, Params]]
  loss: Callable[
    [dict[str, Params], Params, Batch, chex.PRNGKey], tuple[chex.Array, Metrics]
  ]
  acting: str
  act: Callable[[Params, chex.Array, chex.PRNGKey], chex.Array]
  act_greedily: Callable[[Params, chex.Array], chex.Array]


def cql(
  spec: EnvironmentSpec, config: CQLConfig = CQLConfig(), *, torso: Torso | None = None
) -> Agent:
  """CQL, for continuous or discrete actions; it learns from a dataset.

  Args:
    spec: of one environment.
    config: what can be chosen.
    torso: replaces what comes before the dense layers: a haiku function, observations
      `[B, ...]` to features `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the observations don't fit the torso, or the actions are neither
      discrete nor a vector between bounds.
  """
  taken = networks.torso('cql', spec.observation, config.torso, (), torso)
  discrete = isinstance(spec.action, specs.DiscreteArray) or (
    spec.action.dtype.kind in 'iu'
  )
  parts = (_discrete if discrete else _continuous)(spec, config, taken)
  optimizer = optax.adam(config.learning_rate)

  def init(key: chex.PRNGKey) -> CQLState:
    params_key, key = jax.random.split(key)
    params = parts.init(params_key)
    target_critics = jax.tree.map(jnp.copy, params['critics'])
    return CQLState(params, target_critics, optimizer.init(params), key)

  def update(state: CQLState, batch: Batch) -> tuple[CQLState, Metrics]:
    key, loss_key = jax.random.split(state.key)
    gradients, metrics = jax.grad(parts.loss, has_aux=True)(
      state.params, state.target_critics, batch, loss_key
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_critics = optax.incremental_update(
      params['critics'], state.target_critics, config.target_rate
    )
    return CQLState(params, target_critics, opt_state, key), metrics

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return parts.act(params, observation, key), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return parts.act_greedily(params, observation), carry, ()

  declared = transitions.one_step(spec, config.discount, config.batch_size)
  return Agent(
    name='cql',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params[parts.acting],
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    config=dataclasses.asdict(config),
    **declared._asdict(),
  )


def _observation(spec: EnvironmentSpec) -> chex.Array:
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  return jnp.zeros((1, *spec.observation.shape), dtype)


def _continuous(spec: EnvironmentSpec, config: CQLConfig, torso: Torso) -> _Parts:
  """On SAC."""
  bounds = Bounds.of('cql', spec)
  sizes, count = config.hidden_sizes, config.num_samples

  def policy_of(observation: chex.Array) -> SquashedGaussian:
    hidden = hk.nets.MLP(sizes, activate_final=True)(torso(observation))
    return squashed_gaussian(hidden, bounds.size)

  network = hk.without_apply_rng(hk.transform(policy_of))
  critics = hk.without_apply_rng(hk.transform(twin(torso, sizes)))

  def init(key: chex.PRNGKey) -> dict[str, Params]:
    policy_key, critics_key = jax.random.split(key)
    observation = _observation(spec)
    return {
      'policy': network.init(policy_key, observation),
      'critics': critics.init(critics_key, observation, jnp.zeros((1, bounds.size))),
      'log_temperature': jnp.asarray(np.log(config.initial_temperature), jnp.float32),
    }

  def several(distribution: SquashedGaussian, key: chex.PRNGKey) -> Any:
    """Actions `[N, B, A]`, and their log-densities `[N, B]`."""
    shape = (count, *distribution.mean.shape)
    repeated = [jnp.broadcast_to(each, shape) for each in distribution]
    drawn = SquashedGaussian(*repeated).sample_and_log_prob(key)
    return jax.lax.stop_gradient(drawn)

  def loss(
    params: dict[str, Params], target_critics: Params, batch: Batch, key: chex.PRNGKey
  ) -> tuple[chex.Array, Metrics]:
    data = Transitions.of(batch)
    observation, next_observation = data.observation, data.next_observation
    action = bounds.to_unit(data.action)
    keys = jax.random.split(key, 4)
    temperature = jnp.exp(jax.lax.stop_gradient(params['log_temperature']))
    distribution = network.apply(params['policy'], observation)
    chosen, log_prob = distribution.sample_and_log_prob(keys[0])
    q_chosen = critics.apply(
      jax.lax.stop_gradient(params['critics']), observation, chosen
    )
    policy_loss = jnp.mean(temperature * log_prob - jnp.min(q_chosen, axis=0))

    # The entropy that is aimed for is -A.
    surplus = jax.lax.stop_gradient(jnp.mean(log_prob)) - bounds.size
    temperature_loss = -params['log_temperature'] * surplus

    next_distribution = network.apply(params['policy'], next_observation)
    next_actions, next_log_prob = several(next_distribution, keys[1])
    next_q = critics.apply(target_critics, next_observation, next_actions[:1])
    v_t = jnp.min(next_q[:, 0], axis=0)
    if config.entropy_backup:
      v_t -= temperature * next_log_prob[0]
    q = critics.apply(params['critics'], observation, action)
    errors = td_loss(data, q, v_t)

    evenly = jax.random.uniform(keys[2], next_actions.shape, minval=-1.0)
    own_actions, own_log_prob = several(distribution, keys[3])
    q_sampled = critics.apply(
      params['critics'],
      observation,
      jnp.concatenate([evenly, own_actions, next_actions]),
    )
    log_density = jnp.concatenate(
      [
        jnp.full_like(own_log_prob, -bounds.size * np.log(2)),
        own_log_prob,
        next_log_prob,
      ]
    )
    # Of both critics: a sum, as that of their TD errors is.
    penalty = 2 * conservative_penalty(q_sampled, log_density, q)
    critic_loss = 0.5 * errors + config.penalty * penalty
    metrics = {
      'loss': critic_loss,
      'td_loss': errors,
      'penalty': penalty,
      'policy_loss': policy_loss,
      'temperature': temperature,
      'q': jnp.mean(q),
    }
    return critic_loss + policy_loss + temperature_loss, metrics

  def act(params: Params, observation: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return bounds.from_unit(network.apply(params, observation).sample(key))

  def act_greedily(params: Params, observation: chex.Array) -> chex.Array:
    return bounds.from_unit(network.apply(params, observation).mode())

  return _Parts(init, loss, 'policy', act, act_greedily)


def _discrete(spec: EnvironmentSpec, config: CQLConfig, torso: Torso) -> _Parts:
  """On double DQN; the lower of two critics."""
  num_actions = checks.num_actions('cql', spec)
  critics = hk.without_apply_rng(
    hk.transform(discrete_values(torso, config.hidden_sizes, num_actions))
  )

  def init(key: chex.PRNGKey) -> dict[str, Params]:
    return {'critics': critics.init(key, _observation(spec))}

  def lower(params: Params, observation: chex.Array) -> jax.Array:
    return jnp.min(critics.apply(params, observation), axis=0)

  def loss(
    params: dict[str, Params], target_critics: Params, batch: Batch, key: chex.PRNGKey
  ) -> tuple[chex.Array, Metrics]:
    data = Transitions.of(batch)
    best = jnp.argmax(lower(params['critics'], data.next_observation), axis=-1)
    next_q = lower(target_critics, data.next_observation)
    v_t = jnp.take_along_axis(next_q, best[:, None], axis=-1)[:, 0]
    q = critics.apply(params['critics'], data.observation)
    q_data = jnp.einsum('nba,ba->nb', q, jax.nn.one_hot(data.action, num_actions))
    errors = td_loss(data, q_data, v_t)

    by_action = jnp.moveaxis(q, -1, -2)
    log_density = jnp.full(by_action.shape[1:], -np.log(num_actions))
    penalty = 2 * conservative_penalty(by_action, log_density, q_data)
    critic_loss = 0.5 * errors + config.penalty * penalty
    metrics = {
      'loss': critic_loss,
      'td_loss': errors,
      'penalty': penalty,
      'q': jnp.mean(q_data),
    }
    return critic_loss, metrics

  def act(params: Params, observation: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return Categorical(lower(params, observation)).sample(key, 1)[0]

  def act_greedily(params: Params, observation: chex.Array) -> chex.Array:
    return Categorical(lower(params, observation)).mode()

  return _Parts(init, loss, 'critics', act, act_greedily)
