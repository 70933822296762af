"""What agents share that learn from single transitions, each as likely."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from callsheet.agents.base import (
  Batch,
  EnvironmentSpec,
  Limiter,
  NStep,
  Sampling,
  Table,
)
from callsheet.agents.step_tables import step_table

TABLE = 'transitions'
_MAX_SIZE = 1_000_000


class Declared(NamedTuple):
  """The declarations of an `Agent`."""

  writes: NStep
  samples: Sampling
  tables: tuple[Table, ...]


def one_step(spec: EnvironmentSpec, discount: float, batch_size: int) -> Declared:
  """Transitions of one step; a dataset takes the place of their table.

  Args:
    spec: of one environment.
    discount: the agent's, per step.
    batch_size: of one update.
  """
  writes = NStep(TABLE, 1, discount)
  columns = step_table(spec, writes, _MAX_SIZE).columns
  size = max(_MAX_SIZE, batch_size)
  table = Table(TABLE, columns, size, limiter=Limiter(batch_size))
  return Declared(writes, Sampling(TABLE, batch_size), (table,))


class Transitions(NamedTuple):
  """A batch's columns, `[B, ...]` each."""

  observation: Any
  action: Any
  reward: jax.Array
  discount: jax.Array
  next_observation: Any

  @classmethod
  def of(cls, batch: Batch) -> Transitions:
    """Those of a batch."""
    return cls(**{name: batch.data[name] for name in cls._fields})  # type: ignore[arg-type]


def td_loss(data: Transitions, q: jax.Array, next_value: jax.Array) -> jax.Array:
  """The mean squared TD error, summed up over critics, `[]`.

  Args:
    data: B transitions.
    q: of N critics, `[N, B]`.
    next_value: of the next observations, `[B]`; no gradient goes there.
  """
  returns = jax.lax.stop_gradient(data.reward + data.discount * next_value)
  return jnp.sum(jnp.mean(jnp.square(returns - q), axis=-1))
