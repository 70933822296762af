"""TD3+BC: TD3 whose policy also has to do what the dataset does.

- Fujimoto and Gu 2021, "A minimalist approach to offline reinforcement learning",
  https://arxiv.org/abs/2106.06860
- TD3: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic
  methods", https://arxiv.org/abs/1802.09477

The policy maximises lambda Q(s, pi(s)) - (pi(s) - a)^2, with lambda = alpha / mean |Q|
over the batch, so that alpha means the same whatever rewards are.

Where this file deviates: actions are in [-1, 1] for the networks, whatever the bounds
of the environment's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from callsheet.agents import checks, networks, transitions
from callsheet.agents.actions import Bounds
from callsheet.agents.base import Agent, Batch, EnvironmentSpec, Metrics, Params
from callsheet.agents.critics import critics as twin
from callsheet.agents.networks import Torso
from callsheet.agents.transitions import Transitions, td_loss
from callsheet.errors import UsageError

# Config.


@dataclass(frozen=True)
class TD3BCConfig:
  """What can be chosen.

  Attributes:
    alpha: what the critic counts beside the cloning; 0 clones alone.
    policy_delay: updates of the critics for each one of policy and targets.
    target_noise: deviation of the noise on the target policy's actions.
    noise_clip: what that noise is cut off at.
    exploration_noise: deviation of the noise on actions, but not where it is evaluated.
    normalize: whether `callsheet run` fills in mean and deviation of the dataset's
      observations.
    observation_mean: of each of an observation's numbers; empty for 0.
    observation_std: likewise, above 0; empty for 1.
    discount: per step, in (0, 1].
    torso: the kind of networks, see `networks.torso`.
    hidden_sizes: of their dense layers.
    learning_rate: Adam's.
    batch_size: transitions in one update.
    target_rate: how far the targets go to policy and critics with each of their
      updates.

  Raises:
    UsageError: a value out of its range.
  """

  alpha: float = 2.5
  policy_delay: int = 2
  target_noise: float = 0.2
  noise_clip: float = 0.5
  exploration_noise: float = 0.1
  normalize: bool = True
  observation_mean: tuple[float, ...] = ()
  observation_std: tuple[float, ...] = ()
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (256, 256)
  learning_rate: float = 3e-4
  batch_size: int = 256
  target_rate: float = 5e-3

  def __post_init__(self) -> None:
    for name in ('batch_size', 'policy_delay'):
      checks.integer(self, name, 1)
    for name in ('alpha', 'target_noise', 'noise_clip', 'exploration_noise'):
      checks.number(self, name, 0)
    checks.number(self, 'learning_rate', 0, zero=False)
    for name in ('discount', 'target_rate'):
      checks.number(self, name, 0, 1, zero=False)
    checks.sizes(self, 'hidden_sizes')
    if not np.isfinite(self.observation_mean).all():
      checks.refuse(self, 'observation_mean', 'finite numbers')
    std = np.array(self.observation_std)
    if not (np.isfinite(std) & (std > 0)).all():
      checks.refuse(self, 'observation_std', 'finite numbers above 0')


# Networks.


def _normalized(spec: EnvironmentSpec, config: TD3BCConfig, torso: Torso) -> Torso:
  """The torso behind `(observation - mean) / std`."""
  statistics = (config.observation_mean, config.observation_std)
  if not any(statistics):
    return torso
  shape = tuple(spec.observation.shape)
  if any(len(given) not in (0, *shape) for given in statistics) or len(shape) != 1:
    raise UsageError(
      f'td3_bc: {len(statistics[0])} means and {len(statistics[1])} deviations for an '
      f'observation {list(shape)}, expected a vector and one for each of its numbers; '
      'leave them out, or take --normalize=false'
    )
  mean = jnp.asarray(config.observation_mean or 0.0, jnp.float32)
  std = jnp.asarray(config.observation_std or 1.0, jnp.float32)
  return lambda observation: torso((jnp.asarray(observation) - mean) / std)


# Loss.


def policy_loss(
  alpha: float, q: jax.Array, chosen: jax.Array, action: chex.Array
) -> jax.Array:
  """`mean((pi(s) - a)^2) - lambda mean(Q(s, pi(s)))`, `[]`.

  Args:
    alpha: lambda times mean |Q|, whose gradient is left out.
    q: of the chosen actions, `[B]`.
    chosen: by the policy, `[B, A]`.
    action: the dataset's, `[B, A]`.
  """
  scale = alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)) + 1e-6)
  return jnp.mean(jnp.square(chosen - action)) - scale * jnp.mean(q)


# Assembly.


class TD3BCState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: of 'policy' and 'critics', by these names.
    target_params: the same, following slowly.
    opt_states: the optimizers', by the same names.
    steps: updates so far, `[]` int32.
    key: of the next update's noise.
  """

  params: dict[str, Params]
  target_params: dict[str, Params]
  opt_states: dict[str, optax.OptState]
  steps: chex.Array
  key: chex.PRNGKey


def td3_bc(
  spec: EnvironmentSpec,
  config: TD3BCConfig = TD3BCConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """TD3+BC, for continuous actions; it learns from a dataset.

  Args:
    spec: of one environment.
    config: what can be chosen.
    torso: replaces what comes before the dense layers: a haiku function, observations
      `[B, ...]` to features `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the observations don't fit the torso or the statistics, or the actions
      aren't a vector between bounds.
  """
  bounds = Bounds.of('td3_bc', spec)
  taken = networks.torso('td3_bc', spec.observation, config.torso, (), torso)
  taken = _normalized(spec, config, taken)

  def policy_of(observation: chex.Array) -> chex.Array:
    return jnp.tanh(
      hk.nets.MLP([*config.hidden_sizes, bounds.size])(taken(observation))
    )

  network = hk.without_apply_rng(hk.transform(policy_of))
  critics = hk.without_apply_rng(hk.transform(twin(taken, config.hidden_sizes)))
  optimizer = optax.adam(config.learning_rate)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)

  def init(key: chex.PRNGKey) -> TD3BCState:
    observation = jnp.zeros((1, *spec.observation.shape), dtype)
    policy_key, critics_key, key = jax.random.split(key, 3)
    params = {
      'policy': network.init(policy_key, observation),
      'critics': critics.init(critics_key, observation, jnp.zeros((1, bounds.size))),
    }
    return TD3BCState(
      params=params,
      target_params=jax.tree.map(jnp.copy, params),
      opt_states={name: optimizer.init(params[name]) for name in params},
      steps=jnp.zeros((), jnp.int32),
      key=key,
    )

  def critic_loss(
    params: Params, target_params: dict[str, Params], batch: Batch, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array]:
    data = Transitions.of(batch)
    action = bounds.to_unit(data.action)
    noise = config.target_noise * jax.random.normal(key, action.shape)
    noise = jnp.clip(noise, -config.noise_clip, config.noise_clip)
    chosen = network.apply(target_params['policy'], data.next_observation)
    next_q = critics.apply(
      target_params['critics'],
      data.next_observation,
      jnp.clip(chosen + noise, -1, 1),
    )
    q = critics.apply(params, data.observation, action)
    return td_loss(data, q, jnp.min(next_q, axis=0)), jnp.mean(q)

  def actor_loss(params: Params, critic_params: Params, batch: Batch) -> chex.Array:
    observation = batch.data['observation']
    chosen = network.apply(params, observation)
    q = critics.apply(critic_params, observation, chosen)[0]
    action = bounds.to_unit(batch.data['action'])
    return policy_loss(config.alpha, q, chosen, action)

  def update(state: TD3BCState, batch: Batch) -> tuple[TD3BCState, Metrics]:
    key, noise_key = jax.random.split(state.key)
    (loss, q), gradients = jax.value_and_grad(critic_loss, has_aux=True)(
      state.params['critics'], state.target_params, batch, noise_key
    )
    updates, critics_opt_state = optimizer.update(
      gradients, state.opt_states['critics']
    )
    critic_params = optax.apply_updates(state.params['critics'], updates)
    steps = state.steps + 1

    def improve() -> tuple[Params, dict[str, Params], optax.OptState]:
      gradients = jax.grad(actor_loss)(state.params['policy'], critic_params, batch)
      updates, opt_state = optimizer.update(gradients, state.opt_states['policy'])
      policy_params = optax.apply_updates(state.params['policy'], updates)
      params = {'policy': policy_params, 'critics': critic_params}
      target_params = optax.incremental_update(
        params, state.target_params, config.target_rate
      )
      return policy_params, target_params, opt_state

    def leave() -> tuple[Params, dict[str, Params], optax.OptState]:
      return state.params['policy'], state.target_params, state.opt_states['policy']

    policy_params, target_params, policy_opt_state = jax.lax.cond(
      steps % config.policy_delay == 0, improve, leave
    )
    return TD3BCState(
      params={'policy': policy_params, 'critics': critic_params},
      target_params=target_params,
      opt_states={'policy': policy_opt_state, 'critics': critics_opt_state},
      steps=steps,
      key=key,
    ), {'loss': loss, 'q': q}

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    action = network.apply(params, observation)
    action += config.exploration_noise * jax.random.normal(key, action.shape)
    return bounds.from_unit(jnp.clip(action, -1, 1)), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return bounds.from_unit(network.apply(params, observation)), carry, ()

  declared = transitions.one_step(spec, config.discount, config.batch_size)
  return Agent(
    name='td3_bc',
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
