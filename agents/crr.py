"""CRR: critic-regularised regression, which clones what the critic finds better.

- Wang et al. 2020, "Critic regularized regression", https://arxiv.org/abs/2006.15134

The policy is cloned with weights f(A), where A(s, a) is what the dataset's action is
worth above the mean, or the best, of some actions of the policy's own; the critic is
learnt from what the target policy would do next.

Where this file deviates: discrete actions too; the lower of two critics instead of one
that is distributional; a Gaussian instead of a mixture of them; targets follow slowly
instead of being copied now and then; evaluation takes the policy's likeliest action,
not the best of several by the critic.
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

_WEIGHTS = ('exponential', 'binary')
_ADVANTAGES = ('mean', 'max')

# Config.


@dataclass(frozen=True)
class CRRConfig:
  """What can be chosen.

  Attributes:
    weights: f of the advantage: 'exponential', exp(A / temperature) up to `max_weight`,
      or 'binary', 1 where it is above 0, and 0.
    advantage: what a policy's actions are worth, the 'mean' of them or the 'max'.
    temperature: beta; see `weights`.
    max_weight: see `weights`.
    num_samples: actions of the policy, to tell what they are worth.
    discount: per step, in (0, 1].
    torso: the kind of networks, see `networks.torso`.
    hidden_sizes: of their dense layers.
    learning_rate: Adam's.
    batch_size: transitions in one update.
    target_rate: how far the targets go to policy and critics with each update.

  Raises:
    UsageError: a value out of its range.
  """

  weights: str = 'exponential'
  advantage: str = 'mean'
  temperature: float = 1.0
  max_weight: float = 20.0
  num_samples: int = 4
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (256, 256)
  learning_rate: float = 3e-4
  batch_size: int = 256
  target_rate: float = 5e-3

  def __post_init__(self) -> None:
    for name in ('batch_size', 'num_samples'):
      checks.integer(self, name, 1)
    for name in ('temperature', 'max_weight', 'learning_rate'):
      checks.number(self, name, 0, zero=False)
    for name in ('discount', 'target_rate'):
      checks.number(self, name, 0, 1, zero=False)
    checks.sizes(self, 'hidden_sizes')
    for name, known in (('weights', _WEIGHTS), ('advantage', _ADVANTAGES)):
      if getattr(self, name) not in known:
        checks.refuse(self, name, ' or '.join(map(repr, known)))


# Loss.


def policy_weights(
  config: CRRConfig, value: chex.Array, sampled_values: chex.Array
) -> chex.Array:
  """How much each of the dataset's actions is cloned, `[B]`.

  Args:
    config: what can be chosen.
    value: of the dataset's actions, `[B]`.
    sampled_values: of the policy's own, `[num_samples, B]`.
  """
  pooled = jnp.mean if config.advantage == 'mean' else jnp.max
  advantage = value - pooled(sampled_values, axis=0)
  if config.weights == 'binary':
    return jnp.asarray(advantage > 0, jnp.float32)
  # Cut off in logarithms: exp of a large advantage is infinite.
  most = jnp.log(config.max_weight)
  return jnp.exp(jnp.minimum(advantage / config.temperature, most))


# Assembly.


class CRRState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: of 'policy' and 'critics', by these names.
    target_params: the same, following slowly.
    opt_state: the optimizer's.
    key: of the next update's samples.
  """

  params: dict[str, Params]
  target_params: dict[str, Params]
  opt_state: optax.OptState
  key: chex.PRNGKey


def crr(
  spec: EnvironmentSpec, config: CRRConfig = CRRConfig(), *, torso: Torso | None = None
) -> Agent:
  """CRR, for discrete or continuous actions; it learns from a dataset.

  Args:
    spec: of one environment.
    config: what can be chosen.
    torso: replaces what comes before the dense layers: a haiku function, observations
      `[B, ...]` to features `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the observations don't fit the torso, or the actions are neither
      discrete nor a vector between bounds.
  """
  head = heads('crr', spec)
  taken = networks.torso('crr', spec.observation, config.torso, (), torso)
  sizes = config.hidden_sizes

  def policy_of(observation: chex.Array) -> object:
    return head.policy(hk.nets.MLP(sizes, activate_final=True)(taken(observation)))

  critics = hk.without_apply_rng(hk.transform(head.critics(taken, sizes)))
  network = hk.without_apply_rng(hk.transform(policy_of))
  optimizer = optax.adam(config.learning_rate)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)

  def init(key: chex.PRNGKey) -> CRRState:
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    action = jnp.zeros((1, *spec.action.shape), jnp.dtype(spec.action.dtype))
    policy_key, critics_key, key = jax.random.split(key, 3)
    params = {
      'policy': network.init(policy_key, observation),
      'critics': critics.init(critics_key, observation, head.to_unit(action)),
    }
    return CRRState(
      params=params,
      target_params=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      key=key,
    )

  def loss(
    params: dict[str, Params],
    target_params: dict[str, Params],
    batch: Batch,
    key: chex.PRNGKey,
  ) -> tuple[chex.Array, Metrics]:
    data = Transitions.of(batch)
    observation, next_observation = data.observation, data.next_observation
    action = head.to_unit(data.action)
    own_key, next_key = jax.random.split(key)

    next_actions = network.apply(target_params['policy'], next_observation).sample(
      next_key, config.num_samples
    )
    next_q = critics.apply(target_params['critics'], next_observation, next_actions)
    v_t = jnp.mean(jnp.min(next_q, axis=0), axis=0)
    q = critics.apply(params['critics'], observation, action)
    critic_loss = td_loss(data, q, v_t)

    distribution = network.apply(params['policy'], observation)
    own_actions = distribution.sample(own_key, config.num_samples)
    own_q = critics.apply(params['critics'], observation, own_actions)
    weights = policy_weights(config, jnp.min(q, axis=0), jnp.min(own_q, axis=0))
    log_prob = distribution.log_prob(action)
    policy_loss = -jnp.mean(jax.lax.stop_gradient(weights) * log_prob)
    metrics = {
      'loss': critic_loss,
      'policy_loss': policy_loss,
      'q': jnp.mean(q),
      'weight': jnp.mean(weights),
    }
    return critic_loss + policy_loss, metrics

  def update(state: CRRState, batch: Batch) -> tuple[CRRState, Metrics]:
    key, loss_key = jax.random.split(state.key)
    gradients, metrics = jax.grad(loss, has_aux=True)(
      state.params, state.target_params, batch, loss_key
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_params = optax.incremental_update(
      params, state.target_params, config.target_rate
    )
    return CRRState(params, target_params, opt_state, key), metrics

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
    name='crr',
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
