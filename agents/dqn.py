"""DQN and what was found to improve it, each a switch of `DQNConfig`; and Rainbow.

- Q-learning with a replay and a target network: Mnih et al. 2015, "Human-level control
  through deep reinforcement learning", https://doi.org/10.1038/nature14236
- `double`: van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461
- `dueling`: Wang et al. 2016, https://arxiv.org/abs/1511.06581
- `prioritized`: Schaul et al. 2016, https://arxiv.org/abs/1511.05952
- many actors, each with its own epsilon, and n-step returns: Horgan et al. 2018
  (Ape-X), https://arxiv.org/abs/1803.00933
- `noisy`: Fortunato et al. 2017, https://arxiv.org/abs/1706.10295
- `distribution='categorical'`, C51: Bellemare et al. 2017,
  https://arxiv.org/abs/1707.06887
- `distribution='quantile'`, QR-DQN: Dabney et al. 2017,
  https://arxiv.org/abs/1710.10044
- `distribution='implicit'`, IQN: Dabney et al. 2018, https://arxiv.org/abs/1806.06923
- `munchausen`: Vieillard et al. 2020, https://arxiv.org/abs/2007.14430
- `rainbow`, most of them together: Hessel et al. 2018,
  https://arxiv.org/abs/1710.02298

Where this file deviates: Adam instead of RMSProp; the defaults suit small problems
with vector observations, not Atari; the importance exponent is constant, as in Ape-X,
and not annealed; new items get the table's maximal priority, as in Schaul et al., and
not one that the actor computed; the ladder of epsilons spans the environments of one
actor, and every actor has the same; the gradients of the dueling streams aren't scaled.
Each environment has noise of its own at every step, and evaluation has none; layers
below the head are not noisy. Quantiles have the TD errors of their means as
priorities. IQN is evaluated on probabilities that lie evenly, and as many are drawn for
the targets as for the values. Of an n-step transition Munchausen adds to the first
reward alone.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import chex
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
from callsheet.agents.dqn_config import DQNConfig, RainbowConfig
from callsheet.agents.exploration import epsilon_greedy, epsilon_ladder
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.q_losses import (
  QLosses,
  importance_weights,
  munchausen_losses,
  q_losses,
)
from callsheet.agents.q_networks import QNetwork, q_network
from callsheet.agents.step_tables import step_table

__all__ = [
  'TABLE',
  'DQNConfig',
  'DQNState',
  'RainbowConfig',
  'dqn',
  'importance_weights',
  'rainbow',
]

TABLE = 'transitions'


# Loss.


def _loss(
  config: DQNConfig,
  network: QNetwork,
  params: Params,
  target_params: Params,
  keys: chex.Array,
  batch: Batch,
) -> tuple[chex.Array, tuple[QLosses, chex.Array]]:
  """The loss `[]`; what it is the mean of, and the values `[B, A]`.

  Args:
    config: what can be chosen.
    network: its values.
    params: the online network's.
    target_params: the target network's.
    keys: three, `[3, ...]`, for the passes have noise and samples of their own.
    batch: see `Batch`.
  """
  here, there = batch.data['observation'], batch.data['next_observation']
  first, second, third = jnp.unstack(keys)
  online = network.values(params, first, here, config.num_samples)
  target = network.values(target_params, second, there, config.num_samples)

  def means(of: Params, observation: chex.Array) -> jax.Array:
    return network.values(of, third, observation, config.num_policy_samples).q

  if config.munchausen:
    before = means(target_params, here)
    found = munchausen_losses(config, batch, online, target, before)
  else:
    selector = means(params if config.double else target_params, there)
    found = q_losses(config, batch, online, target, selector)
  losses = found.losses
  if config.prioritized:
    losses *= importance_weights(
      batch.probabilities, batch.table_size, config.importance_exponent
    )
  return jnp.mean(losses), (found, online.q)


# Exploration.


def _noisy_values(
  config: DQNConfig,
  network: QNetwork,
  params: Params,
  key: chex.PRNGKey,
  observation: chex.Array,
) -> jax.Array:
  """The values `[B, A]`, in each row with noise of its own."""

  def of_one(key: chex.PRNGKey, row: chex.Array) -> jax.Array:
    alone = jnp.expand_dims(row, 0)
    return network.values(params, key, alone, config.num_policy_samples).q[0]

  return jax.vmap(of_one)(jax.random.split(key, observation.shape[0]), observation)


# Assembly.


class DQNState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: the online network's.
    target_params: the target network's.
    opt_state: the optimizer's.
    steps: updates so far, `[]` int32.
    key: of the noise and the samples that are to come.
  """

  params: Params
  target_params: Params
  opt_state: optax.OptState
  steps: chex.Array
  key: chex.PRNGKey


def dqn(
  spec: EnvironmentSpec, config: DQNConfig = DQNConfig(), *, torso: Torso | None = None
) -> Agent:
  """DQN for discrete actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the head: a haiku function, observations
      `[B, ...]` as the environment gives them to features `[B, F]`, that builds its
      modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't discrete, or its observations don't fit
      the torso.
  """
  return _agent('dqn', spec, config, torso)


def rainbow(
  spec: EnvironmentSpec,
  config: DQNConfig = RainbowConfig(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """Rainbow for discrete actions; arguments and errors are those of `dqn`."""
  return _agent('rainbow', spec, config, torso)


def _agent(
  name: str, spec: EnvironmentSpec, config: DQNConfig, torso: Torso | None
) -> Agent:
  num_actions = checks.num_actions(name, spec)
  sizes = config.hidden_sizes[:-1]
  taken = networks.torso(name, spec.observation, config.torso, sizes, torso)
  network = q_network(config, num_actions, taken)
  loss_and_gradients = jax.value_and_grad(
    functools.partial(_loss, config, network), has_aux=True
  )
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  adam = optax.adam(config.learning_rate, eps=config.adam_epsilon)
  optimizer = clipped(adam, config.max_gradient_norm)

  def init(key: chex.PRNGKey) -> DQNState:
    params = network.init(key, jnp.zeros((1, *spec.observation.shape), dtype))
    return DQNState(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      target_params=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      steps=jnp.zeros((), jnp.int32),
      key=jax.random.fold_in(key, 1),
    )

  def update(state: DQNState, batch: Batch) -> tuple[DQNState, Metrics]:
    keys = jax.random.split(state.key, 4)
    (value, (found, q)), gradients = loss_and_gradients(
      state.params, state.target_params, keys[1:], batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    steps = state.steps + 1
    target_params = optax.periodic_update(
      params, state.target_params, steps, config.target_update_period
    )
    metrics = {
      'loss': value,
      'q': jnp.mean(jnp.max(q, axis=-1)),
      'td_error': jnp.mean(jnp.abs(found.errors)),
      'gradient_norm': optax.global_norm(gradients),
    }
    if config.prioritized:
      # Never zero: an item with no error once must stay possible to draw.
      metrics['priorities'] = found.priorities + 1e-6
    return DQNState(params, target_params, opt_state, steps, keys[0]), metrics

  def policy(
    params: Params, carry: jax.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    if config.noisy or config.distribution == 'implicit':
      key, noise = jax.random.split(key)
      q = _noisy_values(config, network, params, noise, observation)
    else:
      q = network.values(params, None, observation, 1).q
    return epsilon_greedy(q, carry, key), carry, ()

  def evaluation_policy(
    params: Params, carry: chex.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    q = network.values(params, None, observation, config.num_policy_samples).q
    epsilon = jnp.full(q.shape[:1], config.evaluation_epsilon)
    return epsilon_greedy(q, epsilon, key), carry, ()

  counted = EnvironmentSpec(
    spec.observation, specs.DiscreteArray(num_actions, np.int32)
  )
  writes = NStep(TABLE, config.n_step, config.discount, config.num_stacked)
  shared = step_table(counted, writes, config.max_replay_size)
  table = dataclasses.replace(
    shared,
    # A vector is drawn faster where it is beside the rest of its transition.
    steps=shared.steps if len(spec.observation.shape) > 1 else None,
    sampler='prioritized' if config.prioritized else 'uniform',
    priority_exponent=config.priority_exponent,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name=name,
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=functools.partial(
      epsilon_ladder, config.epsilon, config.epsilon_alpha
    ),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
