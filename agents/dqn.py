"""DQN and what was found to improve it, each a switch of `DQNConfig`.

- Q-learning with a replay and a target network: Mnih et al. 2015, "Human-level control
  through deep reinforcement learning", https://doi.org/10.1038/nature14236
- `double`: van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461
- `dueling`: Wang et al. 2016, https://arxiv.org/abs/1511.06581
- `prioritized`: Schaul et al. 2016, https://arxiv.org/abs/1511.05952
- many actors, each with its own epsilon, and n-step returns: Horgan et al. 2018
  (Ape-X), https://arxiv.org/abs/1803.00933

Where this file deviates: Adam instead of RMSProp; the defaults suit small problems
with vector observations, not Atari; the importance exponent is constant, as in Ape-X,
and not annealed; new items get the table's maximal priority, as in Schaul et al., and
not one that the actor computed; the ladder of epsilons spans the environments of one
actor, and every actor has the same; the gradients of the dueling streams aren't scaled.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
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
from callsheet.agents.networks import Torso
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.step_tables import step_table

TABLE = 'transitions'

QValues = Callable[[Params, chex.Array], chex.Array]


# Config.


@dataclass(frozen=True)
class DQNConfig:
  """What can be chosen; the defaults solve CartPole-v1.

  Attributes:
    double: the online network selects the action that the target network values.
    dueling: separate streams for the state's value and the actions' advantages.
    prioritized: sample by TD error, with importance weights; else uniformly.
    num_stacked: frames in an observation along its last axis, the newest last; 4 for
      Atari as it is usually wrapped.
    n_step: the rewards that a transition sums up.
    discount: per step, in (0, 1].
    torso: the kind of network below the head, see `networks.torso`.
    hidden_sizes: of the dense layers; the last is the head's, once in each stream.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    huber_delta: the TD error from which on the loss is linear; None for squares only.
    batch_size: transitions in one update.
    target_update_period: updates from one copy to the target network to the next.
    samples_per_insert: how often a transition is sampled on average; None for no bound.
    min_replay_size: transitions before the first update.
    max_replay_size: transitions held.
    epsilon: environment i of B explores with epsilon^(1 + i / (B - 1) * epsilon_alpha);
      one alone takes the middle of that ladder.
    epsilon_alpha: see `epsilon`.
    evaluation_epsilon: of the evaluation policy; 0 is greedy.
    priority_exponent: Schaul's alpha; 0 samples uniformly.
    importance_exponent: Schaul's beta; 1 corrects the sampling's bias wholly.

  Raises:
    UsageError: a value out of its range.
  """

  double: bool = True
  dueling: bool = False
  prioritized: bool = True
  num_stacked: int = 1
  n_step: int = 5
  discount: float = 0.99
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  learning_rate: float = 2e-3
  adam_epsilon: float = 1e-5
  max_gradient_norm: float | None = 10.0
  huber_delta: float | None = 1.0
  batch_size: int = 64
  target_update_period: int = 25
  samples_per_insert: float | None = 16.0
  min_replay_size: int = 1_000
  max_replay_size: int = 50_000
  epsilon: float = 0.3
  epsilon_alpha: float = 1.0
  evaluation_epsilon: float = 0.0
  priority_exponent: float = 0.6
  importance_exponent: float = 0.4

  def __post_init__(self) -> None:
    for name in ('num_stacked', 'n_step', 'batch_size', 'target_update_period'):
      checks.integer(self, name, 1)
    for name in ('min_replay_size', 'max_replay_size'):
      checks.integer(self, name, 1)
    for name in ('adam_epsilon', 'epsilon_alpha', 'priority_exponent'):
      checks.number(self, name, 0)
    for name in ('epsilon', 'evaluation_epsilon', 'importance_exponent'):
      checks.number(self, name, 0, 1)
    checks.number(self, 'discount', 0, 1, zero=False)
    checks.number(self, 'learning_rate', 0, zero=False)
    for name in ('max_gradient_norm', 'huber_delta', 'samples_per_insert'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    if any(not isinstance(size, int) or size < 1 for size in self.hidden_sizes):
      checks.refuse(self, 'hidden_sizes', 'positive integers')
    for name in ('batch_size', 'min_replay_size'):
      if getattr(self, name) > self.max_replay_size:
        checks.refuse(self, name, f'at most max_replay_size, {self.max_replay_size}')


# Networks.


def _q_network(config: DQNConfig, num_actions: int, torso: Torso) -> hk.Transformed:
  """Observations `[B, ...]` to values `[B, A]`, float32."""

  def head(name: str, size: int) -> hk.nets.MLP:
    return hk.nets.MLP([*config.hidden_sizes[-1:], size], name=name)

  def q_values(inputs: chex.Array) -> chex.Array:
    features = torso(inputs)
    advantage: chex.Array = head('advantage', num_actions)(features)
    if not config.dueling:
      return advantage
    value: chex.Array = head('value', 1)(features)
    return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)

  return hk.without_apply_rng(hk.transform(q_values))


# Loss.


def importance_weights(
  probabilities: chex.Array, table_size: chex.Array, exponent: float
) -> chex.Array:
  """`(N P(i))^-beta` over the batch's largest: Schaul et al. 2016, section 3.4.

  Args:
    probabilities: `[B]`, of drawing each item.
    table_size: `[]`, the N items that were drawn from.
    exponent: beta.
  """
  # In logarithms: N P(i) may leave the range of float32 before it is scaled.
  logs = -exponent * jnp.log(table_size * probabilities)
  return jnp.exp(logs - jnp.max(logs))


def _loss(
  config: DQNConfig, q: QValues, params: Params, target_params: Params, batch: Batch
) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
  """The loss `[]`, the TD errors `[B]` (target minus value) and the values `[B, A]`.

  Args:
    config: what can be chosen.
    q: `(params, observation [B, ...]) -> values [B, A]`.
    params: the online network's.
    target_params: the target network's.
    batch: see `Batch`.
  """
  rlax = import_rlax()
  data = batch.data
  q_tm1 = q(params, data['observation'])
  q_t = q(target_params, data['next_observation'])
  observed = (q_tm1, data['action'], data['reward'], data['discount'], q_t)
  if config.double:
    q_t_selector = q(params, data['next_observation'])
    errors = jax.vmap(rlax.double_q_learning)(*observed, q_t_selector)
  else:
    errors = jax.vmap(rlax.q_learning)(*observed)
  if config.huber_delta is None:
    losses = rlax.l2_loss(errors)
  else:
    losses = rlax.huber_loss(errors, config.huber_delta)
  if config.prioritized:
    losses *= importance_weights(
      batch.probabilities, batch.table_size, config.importance_exponent
    )
  return jnp.mean(losses), (errors, q_tm1)


# Exploration.


def epsilon_ladder(config: DQNConfig, num_environments: int) -> chex.Array:
  """The epsilon of each environment, `[B]` float32, largest first (Ape-X)."""
  count = num_environments
  rungs = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
  return jnp.asarray(config.epsilon ** (1 + rungs * config.epsilon_alpha), jnp.float32)


def _epsilon_greedy(
  q_values: chex.Array, epsilon: chex.Array, key: chex.PRNGKey
) -> chex.Array:
  explore_key, action_key = jax.random.split(key)
  greedy = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
  random = jax.random.randint(action_key, greedy.shape, 0, q_values.shape[-1])
  explore = jax.random.uniform(explore_key, greedy.shape) < epsilon
  return jnp.where(explore, random, greedy)


# Assembly.


class DQNState(NamedTuple):
  """Everything that the learner holds.

  Attributes:
    params: the online network's.
    target_params: the target network's.
    opt_state: the optimizer's.
    steps: updates so far, `[]` int32.
  """

  params: Params
  target_params: Params
  opt_state: optax.OptState
  steps: chex.Array


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
  num_actions = checks.num_actions('dqn', spec)
  sizes = config.hidden_sizes[:-1]
  taken = networks.torso('dqn', spec.observation, config.torso, sizes, torso)
  network = _q_network(config, num_actions, taken)
  loss = functools.partial(_loss, config, network.apply)
  loss_and_gradients = jax.value_and_grad(loss, has_aux=True)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  clip = config.max_gradient_norm
  # Flat: one pass over all parameters instead of a few operations for each array.
  optimizer = optax.flatten(
    optax.chain(
      optax.identity() if clip is None else optax.clip_by_global_norm(clip),
      optax.adam(config.learning_rate, eps=config.adam_epsilon),
    )
  )

  def init(key: chex.PRNGKey) -> DQNState:
    params = network.init(key, jnp.zeros((1, *spec.observation.shape), dtype))
    return DQNState(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      target_params=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      steps=jnp.zeros((), jnp.int32),
    )

  def update(state: DQNState, batch: Batch) -> tuple[DQNState, Metrics]:
    (value, (errors, q)), gradients = loss_and_gradients(
      state.params, state.target_params, batch
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
      'td_error': jnp.mean(jnp.abs(errors)),
      'gradient_norm': optax.global_norm(gradients),
    }
    if config.prioritized:
      # Never zero: an item with no error once must stay possible to draw.
      metrics['priorities'] = jnp.abs(errors) + 1e-6
    return DQNState(params, target_params, opt_state, steps), metrics

  def policy(
    params: Params, carry: chex.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    return _epsilon_greedy(network.apply(params, observation), carry, key), carry, ()

  def evaluation_policy(
    params: Params, carry: chex.Array, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, chex.Array, tuple[()]]:
    q = network.apply(params, observation)
    epsilon = jnp.full(q.shape[:1], config.evaluation_epsilon)
    return _epsilon_greedy(q, epsilon, key), carry, ()

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
    name='dqn',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=functools.partial(epsilon_ladder, config),
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
