"""R2D2: Q-learning with a recurrent network and a replay of sequences.

Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement
Learning", https://openreview.net/forum?id=r1lyTjAqYX

Where this file deviates: the LSTM sees the previous action but not the previous reward,
which no policy is given; an environment may show it. Sequences don't cross the ends of
episodes. One that an episode begins with is learned from as a whole: its stored state
is exact, and nobody else learns from those steps. The loss is the mean over all steps
learned from in a batch. New sequences get the table's maximal priority, and not one
that the actor computed; the ladder of epsilons spans the environments of one actor, and
every actor has the same. The defaults suit small problems, not Atari.
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
import numpy as np
import optax
from dm_env import specs

from callsheet.agents import checks, networks, recurrent_q, sequence_errors
from callsheet.agents.base import (
  Agent,
  Batch,
  EnvironmentSpec,
  Limiter,
  Metrics,
  Params,
  Sampling,
  Sequences,
)
from callsheet.agents.exploration import epsilon_greedy, epsilon_ladder
from callsheet.agents.networks import Torso
from callsheet.agents.optimizers import clipped
from callsheet.agents.q_losses import importance_weights
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.step_tables import step_table

TABLE = 'sequences'


# Config.


@dataclass(frozen=True)
class R2D2Config:
  """What can be chosen; the defaults solve CartPole-v1 without its velocities.

  Attributes:
    burn_in_length: steps that a sequence begins with to bring its stored state up to
      date, which nothing is learned from; none where the episode begins with it.
    unroll_length: steps behind those, which are learned from.
    period: steps from the beginning of one sequence to that of the next; at most
      `unroll_length`, so that each step is learned from in some sequence.
    num_stacked: frames in an observation along its last axis, the newest last.
    n_step: the rewards that a target sums up, fewer at a sequence's end.
    discount: per step, in (0, 1].
    rescale: values are those of `sign(x) (sqrt(|x| + 1) - 1) + 0.001 x`.
    torso: the kind of network below the LSTM, see `networks.torso`.
    hidden_sizes: of the dense layers; the last is each stream's above the LSTM.
    lstm_size: of its hidden state and of its cell.
    learning_rate: Adam's.
    adam_epsilon: Adam's.
    max_gradient_norm: the global norm is clipped to it; None for no clipping.
    batch_size: sequences in one update.
    target_update_period: updates from one copy to the target network to the next.
    samples_per_insert: how often a sequence is sampled on average; None for no bound.
    min_replay_size: sequences before the first update.
    max_replay_size: sequences held.
    epsilon: environment i of B explores with epsilon^(1 + i / (B - 1) * epsilon_alpha);
      one alone takes the middle of that ladder.
    epsilon_alpha: see `epsilon`.
    evaluation_epsilon: of the evaluation policy; 0 is greedy.
    priority_eta: a sequence's priority is `eta max |e| + (1 - eta) mean |e|` of the TD
      errors e of the steps that are learned from.
    priority_exponent: Schaul's alpha; 0 samples uniformly.
    importance_exponent: Schaul's beta; 1 corrects the sampling's bias wholly.

  Raises:
    UsageError: a value out of its range.
  """

  burn_in_length: int = 8
  unroll_length: int = 16
  period: int = 8
  num_stacked: int = 1
  n_step: int = 5
  discount: float = 0.99
  rescale: bool = True
  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (64, 64)
  lstm_size: int = 64
  learning_rate: float = 1e-3
  adam_epsilon: float = 1e-5
  max_gradient_norm: float | None = 10.0
  batch_size: int = 16
  target_update_period: int = 100
  samples_per_insert: float | None = 32.0
  min_replay_size: int = 200
  max_replay_size: int = 20_000
  epsilon: float = 0.3
  epsilon_alpha: float = 1.0
  evaluation_epsilon: float = 0.0
  priority_eta: float = 0.9
  priority_exponent: float = 0.6
  importance_exponent: float = 0.4

  def __post_init__(self) -> None:
    checks.integer(self, 'burn_in_length', 0)
    for name in ('unroll_length', 'period', 'num_stacked', 'n_step', 'lstm_size'):
      checks.integer(self, name, 1)
    for name in ('batch_size', 'target_update_period', 'min_replay_size'):
      checks.integer(self, name, 1)
    checks.integer(self, 'max_replay_size', 1)
    for name in ('adam_epsilon', 'epsilon_alpha', 'priority_exponent'):
      checks.number(self, name, 0)
    for name in ('epsilon', 'evaluation_epsilon', 'importance_exponent'):
      checks.number(self, name, 0, 1)
    checks.number(self, 'priority_eta', 0, 1)
    checks.number(self, 'discount', 0, 1, zero=False)
    checks.number(self, 'learning_rate', 0, zero=False)
    for name in ('max_gradient_norm', 'samples_per_insert'):
      if getattr(self, name) is not None:
        checks.number(self, name, 0, zero=False)
    if any(not isinstance(size, int) or size < 1 for size in self.hidden_sizes):
      checks.refuse(self, 'hidden_sizes', 'positive integers')
    if self.period > self.unroll_length:
      checks.refuse(self, 'period', f'at most unroll_length, {self.unroll_length}')
    for name in ('batch_size', 'min_replay_size'):
      if getattr(self, name) > self.max_replay_size:
        checks.refuse(self, name, f'at most max_replay_size, {self.max_replay_size}')


# Loss.


def _loss(
  config: R2D2Config,
  network: hk.Transformed,
  params: Params,
  target_params: Params,
  batch: Batch,
) -> tuple[jax.Array, Metrics]:
  """The loss `[]`, and what is shown of it."""
  data = {name: jnp.asarray(column) for name, column in batch.data.items()}
  values, target_values = (
    recurrent_q.unrolled(network, each, data, config.burn_in_length)
    for each in (params, target_params)
  )
  errors = sequence_errors.td_errors(
    values,
    target_values,
    data,
    n_step=config.n_step,
    discount=config.discount,
    rescale=config.rescale,
  )
  learned = sequence_errors.learned(data, config.burn_in_length)
  weights = importance_weights(
    batch.probabilities, batch.table_size, config.importance_exponent
  )

  def mean(of_steps: jax.Array) -> jax.Array:
    total = jnp.sum(jnp.where(learned, of_steps, 0.0))
    return total / jnp.maximum(jnp.sum(learned), 1)

  loss = mean(jnp.expand_dims(weights, 1) * import_rlax().l2_loss(errors))
  metrics = {
    'loss': loss,
    'q': mean(jnp.max(values[:, :-1], axis=-1)),
    'td_error': mean(jnp.abs(errors)),
    'priorities': sequence_errors.priorities(errors, learned, config.priority_eta),
  }
  return loss, metrics


# Assembly.


class Memory(NamedTuple):
  """What an actor carries from step to step.

  Attributes:
    lstm: hidden state and cell, `[B, lstm_size]` float32 each.
    previous_action: `[B]` int32, or `recurrent_q.NO_ACTION`.
    epsilon: of each environment, `[B]` float32.
  """

  lstm: hk.LSTMState
  previous_action: jax.Array
  epsilon: jax.Array


class R2D2State(NamedTuple):
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


def r2d2(
  spec: EnvironmentSpec,
  config: R2D2Config = R2D2Config(),
  *,
  torso: Torso | None = None,
) -> Agent:
  """R2D2 for discrete actions.

  Args:
    spec: of one environment. Without a `torso` its observation is a vector, an image,
      or a discrete number.
    config: what can be chosen.
    torso: replaces the network below the LSTM: a haiku function, observations
      `[B, ...]` as the environment gives them to features `[B, F]`, that builds its
      modules anew in every call.

  Raises:
    UsageError: the environment's actions aren't discrete, or its observations don't fit
      the torso.
  """
  num_actions = checks.num_actions('r2d2', spec)
  sizes = config.hidden_sizes[:-1]
  taken = networks.torso('r2d2', spec.observation, config.torso, sizes, torso)
  network = recurrent_q.network(
    taken, num_actions, config.lstm_size, config.hidden_sizes[-1:]
  )
  loss_and_gradients = jax.value_and_grad(
    functools.partial(_loss, config, network), has_aux=True
  )
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)
  optimizer = clipped(
    optax.adam(config.learning_rate, eps=config.adam_epsilon), config.max_gradient_norm
  )

  def initial_memory(num_environments: int) -> Memory:
    zeros = jnp.zeros((num_environments, config.lstm_size), jnp.float32)
    return Memory(
      lstm=hk.LSTMState(zeros, zeros),
      previous_action=jnp.full(num_environments, recurrent_q.NO_ACTION, jnp.int32),
      epsilon=epsilon_ladder(config.epsilon, config.epsilon_alpha, num_environments),
    )

  def init(key: chex.PRNGKey) -> R2D2State:
    memory = initial_memory(1)
    observation = jnp.zeros((1, 1, *spec.observation.shape), dtype)
    action, uncut = memory.previous_action[None], jnp.zeros((1, 1), bool)
    params = network.init(key, observation, action, memory.lstm, uncut)
    return R2D2State(
      params=params,
      # A copy: both are donated to the first update, which takes no buffer twice.
      target_params=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
      steps=jnp.zeros((), jnp.int32),
    )

  def update(state: R2D2State, batch: Batch) -> tuple[R2D2State, Metrics]:
    (_, metrics), gradients = loss_and_gradients(
      state.params, state.target_params, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    steps = state.steps + 1
    target_params = optax.periodic_update(
      params, state.target_params, steps, config.target_update_period
    )
    metrics = {**metrics, 'gradient_norm': optax.global_norm(gradients)}
    return R2D2State(params, target_params, opt_state, steps), metrics

  def act(
    params: Params,
    memory: Memory,
    epsilon: jax.Array,
    observation: chex.Array,
    key: chex.PRNGKey,
  ) -> tuple[jax.Array, Memory]:
    seen, before = jnp.expand_dims(observation, 0), memory.previous_action[None]
    q, lstm = network.apply(
      params, seen, before, memory.lstm, jnp.zeros_like(before, bool)
    )
    action = epsilon_greedy(q[0], epsilon, key)
    return action, Memory(lstm, action, memory.epsilon)

  def policy(
    params: Params, memory: Memory, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, dict[str, jax.Array]]:
    stored = {
      'hidden': memory.lstm.hidden,
      'cell': memory.lstm.cell,
      'previous_action': memory.previous_action,
    }
    return *act(params, memory, memory.epsilon, observation, key), stored

  def evaluation_policy(
    params: Params, memory: Memory, observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[jax.Array, Memory, tuple[()]]:
    epsilon = jnp.full_like(memory.epsilon, config.evaluation_epsilon)
    return *act(params, memory, epsilon, observation, key), ()

  writes = Sequences(
    TABLE,
    sequence_length=config.burn_in_length + config.unroll_length,
    period=config.period,
    num_stacked=config.num_stacked,
  )
  table = step_table(
    EnvironmentSpec(spec.observation, specs.DiscreteArray(num_actions, np.int32)),
    writes,
    config.max_replay_size,
    extras=recurrent_q.stored(config.lstm_size),
    sampler='prioritized',
    priority_exponent=config.priority_exponent,
    limiter=Limiter(config.min_replay_size, config.samples_per_insert),
  )
  return Agent(
    name='r2d2',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=initial_memory,
    writes=writes,
    samples=Sampling(TABLE, config.batch_size),
    tables=(table,),
    config=dataclasses.asdict(config),
  )
