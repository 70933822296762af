"""Rollouts on their way through a queue, and what returns and losses make of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from callsheet.agents import cores
from callsheet.agents.base import Batch, EnvironmentSpec, Limiter, Sequences, Table
from callsheet.agents.step_tables import step_table

TABLE = 'rollouts'


def rollout_table(
  spec: EnvironmentSpec,
  length: int,
  queue_size: int,
  *,
  num_stacked: int = 1,
  lstm_size: int | None = None,
  extras: Mapping[str, specs.Array] = MappingProxyType({}),
) -> tuple[Sequences, Table]:
  """Rollouts that run on over the ends of episodes, each to be learnt from once.

  Args:
    spec: of one environment.
    length: L, steps of a rollout.
    queue_size: rollouts that may wait for the learner; then actors wait for it.
    num_stacked: frames in an observation along its last axis.
    lstm_size: of the LSTM whose memory goes along; None for none.
    extras: what the policy gives besides, `log_prob` `[]` and `version` `[]`: the
      updates behind the parameters that it acted by.

  Returns:
    what an actor writes, and the table.
  """
  writes = Sequences(TABLE, length, length, True, num_stacked)
  table = step_table(
    spec,
    writes,
    queue_size,
    extras={
      **cores.memory_specs(lstm_size),
      'log_prob': specs.Array((), np.float32),
      'version': specs.Array((), np.int32),
      **extras,
    },
    sampler='fifo',
    max_times_sampled=1,
    limiter=Limiter.queue(queue_size),
  )
  return writes, table


def trace_decays(mask: jax.Array, decay: float) -> jax.Array:
  """Lambda of each step `[B, L]`: 0 where the next one is no step of an episode.

  What returns look back on ends there, also where a truncation's discount is 1.

  Args:
    mask: `[B, L]` bool, see `Sequences`.
    decay: lambda of all other steps.
  """
  behind = jnp.concatenate([mask[:, 1:], jnp.ones_like(mask[:, :1])], axis=1)
  return jnp.where(behind, decay, 0.0)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Over the steps that are some, `[...]` both; 0 if there is none."""
  weights = mask.astype(values.dtype)
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)


def policy_lag(steps: jax.Array, batch: Batch) -> jax.Array:
  """How many updates ago the policy was the newest, on average over a batch.

  Args:
    steps: updates so far, `[]`.
    batch: whose extra `version` `[B, L]` has the updates behind the acting policy.
  """
  ago = steps - jnp.asarray(batch.data['version'])
  return masked_mean(ago.astype(jnp.float32), jnp.asarray(batch.data['mask']))
