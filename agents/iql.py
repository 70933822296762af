"""IQL: implicit Q-learning, which never asks what an action outside the data is worth.

- Kostrikov et al. 2021, "Offline reinforcement learning with implicit Q-learning",
  https://arxiv.org/abs/2110.06169

V(s) is regressed to an upper expectile of Q(s, a) over the dataset's actions, Q(s, a)
to r + discount V(s'), and the policy is cloned with weights exp(beta (Q - V)).

Where this file deviates: discrete actions too; one step of Adam for values, critics and
policy together, on the losses before it; the policy's learning rate doesn't decay;
rewards aren't rescaled.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from callsheet.agents import checks, networks, transitions
from callsheet.agents.base import Agent, Batch, EnvironmentSpec, Metrics, Params
from callsheet.agents.heads import heads
from callsheet.agents.networks import Torso
from callsheet.agents.transitions import Transitions, td_loss

# Config.


@dataclass(frozen=True)
class IQLConfig:
  """What can be chosen.

  Attributes:
    expectile: tau in (0, 1); 0.5 is the mean, near 1 the best action of the dataset.
    temperature: beta, of the advantages; 0 clones the behaviour.
    max_weight: what exp(beta A) is cut off at.
    discount: per step, in (0, 1].
    torso: the kind of networks, see `networks.torso`.
    hidden_sizes: of their dense layers.
    learning_rate: Adam's.
    batch_size: transitions in one update.
    target_rate: how far the target critics go to the critics with each update.

  Raises:
    UsageError: a value out of its range.
  """

  expectile: float = 0.7
  temperature: float = 3.0
  max_weight: float = 100.0
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (256, 256)
  learning_rate: float = 3e-4
  batch_size: int = 256
  target_rate: float = 5e-3

  def __post_init__(self) -> None:
    checks.integer(self, 'batch_size', 1)
    checks.number(self, 'expectile', 0, 1, zero=False)
    if self.expectile == 1:
      checks.refuse(self, 'expectile', 'a number between 0 and 1')
    checks.number(self, 'temperature', 0)
    for name in ('max_weight', 'learning_rate'):
      checks.number(self, name, 0, zero=False)
    for name in ('discount', 'target_rate'):
      checks.number(self, name, 0, 1, zero=False)
    checks.sizes(self, 'hidden_sizes')


# Loss.


def expectile_loss(difference: chex.Array, expectile: float) -> chex.Array:
  """`|tau - 1(u < 0)| u^2`, whose minimum over v of u = q - v is q's tau-expectile.

  Args:
    difference: u, of any shape.
    expectile: tau.
  """
  weight = jnp.where(difference < 0, 1 - expectile, expectile)
  return weight * jnp.square(difference)


def policy_weights(
  advantage: chex.Array, temperature: float, max_weight: float
) -> chex.Array:
  """`min(exp(beta A), max_weight)`, `[B]`: how much each action is cloned."""
  # Cut off in logarithms: what is infinite has no gradient, even where it isn't taken.
  return jnp.exp(jnp.minimum(temperature * advantage, jnp.log(max_weight)))


# Assembly.


class IQLState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: of 'policy', 'critics' and 'value', by these names.
    target_critics: parameters that follow those of the critics.
    opt_state: the optimizer's.
  """

  params: dict[str, Params]
  target_critics: Params
  opt_state: optax.OptState


def iql(
  spec: EnvironmentSpec, config: IQLConfig = IQLConfig(), *, torso: Torso | None = None
) -> Agent:
  """IQL, for discrete or continuous actions; it learns from a dataset.

  Args:
    spec: of one environment.
    config: what can be chosen.
    torso: replaces what comes before the dense layers: a haiku function, observations
      `[B, ...]` to features `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the observations don't fit the torso, or the actions are neither
      discrete nor a vector between bounds.
  """
  head = heads('iql', spec)
  taken = networks.torso('iql', spec.observation, config.torso, (), torso)
  sizes = config.hidden_sizes

  def value_of(observation: chex.Array) -> chex.Array:
    values: jax.Array = hk.nets.MLP([*sizes, 1], name='value')(taken(observation))
    return values[..., 0]

  def policy_of(observation: chex.Array) -> object:
    return head.policy(hk.nets.MLP(sizes, activate_final=True)(taken(observation)))

  value = hk.without_apply_rng(hk.transform(value_of))
  critics = hk.without_apply_rng(hk.transform(head.critics(taken, sizes)))
  network = hk.without_apply_rng(hk.transform(policy_of))
  optimizer = optax.adam(config.learning_rate)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)

  def init(key: chex.PRNGKey) -> IQLState:
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    action = jnp.zeros((1, *spec.action.shape), jnp.dtype(spec.action.dtype))
    keys = jax.random.split(key, 3)
    params = {
      'policy': network.init(keys[0], observation),
      'critics': critics.init(keys[1], observation, head.to_unit(action)),
      'value': value.init(keys[2], observation),
    }
    return IQLState(
      params=params,
      target_critics=jax.tree.map(jnp.copy, params['critics']),
      opt_state=optimizer.init(params),
    )

  def loss(
    params: dict[str, Params], target_critics: Params, batch: Batch
  ) -> tuple[chex.Array, Metrics]:
    data = Transitions.of(batch)
    observation, action = data.observation, head.to_unit(data.action)
    target_q = jnp.min(critics.apply(target_critics, observation, action), axis=0)
    v = value.apply(params['value'], observation)
    value_loss = jnp.mean(expectile_loss(target_q - v, config.expectile))

    v_t = value.apply(params['value'], data.next_observation)
    q = critics.apply(params['critics'], observation, action)
    critic_loss = td_loss(data, q, v_t)

    weights = policy_weights(target_q - v, config.temperature, config.max_weight)
    log_prob = network.apply(params['policy'], observation).log_prob(action)
    policy_loss = -jnp.mean(jax.lax.stop_gradient(weights) * log_prob)
    metrics = {
      'loss': value_loss + critic_loss,
      'value_loss': value_loss,
      'critic_loss': critic_loss,
      'policy_loss': policy_loss,
      'value': jnp.mean(v),
      'q': jnp.mean(q),
      'weight': jnp.mean(weights),
    }
    return value_loss + critic_loss + policy_loss, metrics

  def update(state: IQLState, batch: Batch) -> tuple[IQLState, Metrics]:
    gradients, metrics = jax.grad(loss, has_aux=True)(
      state.params, state.target_critics, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_critics = optax.incremental_update(
      params['critics'], state.target_critics, config.target_rate
    )
    return IQLState(params, target_critics, opt_state), metrics

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    [action] = network.apply(params, observation).sample(key, 1)
    return head.from_unit(action), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return head.from_unit(network.apply(params, observation).mode()), carry, ()

  declared = transitions.one_step(spec, config.discount, config.batch_size)
  return Agent(
    name='iql',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params['policy'],
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    config=dataclasses.asdict(config),
    **declared._asdict(),
  )
