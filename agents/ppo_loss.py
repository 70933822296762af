"""The objective of PPO: Schulman et al. 2017, https://arxiv.org/abs/1707.06347."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from callsheet.agents.actor_critic import ActorCritic
from callsheet.agents.base import Metrics, Params
from callsheet.agents.cores import Memory
from callsheet.agents.rlax_import import import_rlax
from callsheet.agents.rollouts import masked_mean, trace_decays


class Rollouts(NamedTuple):
  """N pieces of T steps that are learnt from; T is 1 without an LSTM.

  Attributes:
    observation: `[N, T, ...]`, normalized.
    first: `[N, T]` bool, where an episode begins.
    memory: `[N, ...]` each, what the first step is met with.
    action: `[N, T, ...]`, as it was drawn.
    log_prob: `[N, T]`, of the policy that drew it.
    advantage: `[N, T]`.
    value: `[N, T]`, what it was before the update, normalized.
    target: `[N, T]`, what it should be, normalized.
    mask: `[N, T]` bool, whether that is a step of an episode.
  """

  observation: jax.Array
  first: jax.Array
  memory: Memory
  action: jax.Array
  log_prob: jax.Array
  advantage: jax.Array
  value: jax.Array
  target: jax.Array
  mask: jax.Array


def single_steps(rollouts: Rollouts) -> Rollouts:
  """The same as N T pieces of one step each; without an LSTM they can do so."""
  pieces: Rollouts = jax.tree.map(
    lambda array: jnp.reshape(array, (-1, 1, *array.shape[2:])), rollouts
  )
  return pieces


def advantages(
  values: jax.Array,
  data: Mapping[str, jax.Array],
  discount: float,
  trace_decay: float,
) -> jax.Array:
  """Generalized advantage estimates `[B, L]`; see Schulman et al. 2016.

  Args:
    values: `[B, L + 1]`, of every observation of a rollout.
    data: the columns of `Sequences`.
    discount: per step.
    trace_decay: lambda.
  """
  estimate = jax.vmap(import_rlax().truncated_generalized_advantage_estimation)
  decays = trace_decays(data['mask'], trace_decay)
  estimated: jax.Array = estimate(
    data['reward'], discount * data['discount'], decays, values
  )
  return estimated


def clipped_loss(
  network: ActorCritic,
  params: Params,
  rollouts: Rollouts,
  *,
  clip_ratio: float,
  clip_value: float | None,
  value_cost: float,
  entropy_cost: float,
) -> tuple[jax.Array, Metrics]:
  """The loss `[]` of a minibatch, and what it is made of; see `PPOConfig`."""
  mask = rollouts.mask
  policy, value = network.unroll(
    params, rollouts.observation, rollouts.first, rollouts.memory
  )
  moved = policy.log_prob(rollouts.action) - rollouts.log_prob
  # Where there is no step the replay has no log-probability.
  moved = jnp.where(mask, moved, 0.0)
  ratio = jnp.exp(moved)
  low, high = 1 - clip_ratio, 1 + clip_ratio
  gain = jnp.minimum(
    ratio * rollouts.advantage, jnp.clip(ratio, low, high) * rollouts.advantage
  )
  errors = (value - rollouts.target) ** 2
  if clip_value is not None:
    change = jnp.clip(value - rollouts.value, -clip_value, clip_value)
    errors = jnp.maximum(errors, (rollouts.value + change - rollouts.target) ** 2)
  policy_loss = masked_mean(-gain, mask)
  value_loss = masked_mean(0.5 * errors, mask)
  entropy = masked_mean(policy.entropy(), mask)
  loss = policy_loss + value_cost * value_loss - entropy_cost * entropy
  return loss, {
    'loss': loss,
    'policy_loss': policy_loss,
    'value_loss': value_loss,
    'entropy': entropy,
    'kl': masked_mean(ratio - 1 - moved, mask),
    'clipped': masked_mean((jnp.abs(ratio - 1) > clip_ratio) * 1.0, mask),
  }
