"""Running mean and variance of what an agent sees, kept in the learner's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

_SMALLEST_VARIANCE = 1e-8


class Statistics(NamedTuple):
  """Of all rows so far.

  Attributes:
    number: `[]` float32, of rows.
    mean: `[...]` float32, of a row's shape.
    variance: `[...]` float32.
  """

  number: jax.Array
  mean: jax.Array
  variance: jax.Array

  @property
  def std(self) -> jax.Array:
    """`[...]`, never 0: what has not varied yet is left alone."""
    varied = self.variance > _SMALLEST_VARIANCE
    return jnp.sqrt(jnp.where(varied, self.variance, 1.0))


def empty(shape: tuple[int, ...]) -> Statistics:
  """Of no row yet: `normalize` leaves everything as it is."""
  return Statistics(
    jnp.zeros((), jnp.float32),
    jnp.zeros(shape, jnp.float32),
    jnp.ones(shape, jnp.float32),
  )


def extend(
  statistics: Statistics,
  rows: jax.Array,
  mask: jax.Array | None = None,
  longest: float = jnp.inf,
) -> Statistics:
  """With these rows as well, by the sums of Chan et al. 1979.

  Args:
    statistics: of the rows before.
    rows: `[N..., ...]`, some leading axes before those of a row.
    mask: `[N...]` bool, which of them count; None for all.
    longest: the rows before weigh no more than so many, so that old ones are forgotten.
  """
  rows = jnp.asarray(rows, jnp.float32)
  rows = jnp.reshape(rows, (-1, *statistics.mean.shape))
  given = jnp.ones(len(rows), bool) if mask is None else jnp.ravel(mask)
  weights = jnp.reshape(given, (-1, *[1] * statistics.mean.ndim)).astype(jnp.float32)
  count = jnp.sum(given.astype(jnp.float32))
  mean = jnp.sum(weights * rows, axis=0) / jnp.maximum(count, 1)
  variance = jnp.sum(weights * (rows - mean) ** 2, axis=0) / jnp.maximum(count, 1)
  before = jnp.minimum(statistics.number, longest)
  total = jnp.maximum(before + count, 1)
  share = count / total
  shift = mean - statistics.mean
  spread = (1 - share) * statistics.variance + share * variance
  extended = Statistics(
    before + count,
    statistics.mean + share * shift,
    spread + share * (1 - share) * shift**2,
  )
  none = count == 0
  return Statistics(
    *(jnp.where(none, old, new) for old, new in zip(statistics, extended, strict=True))
  )


def normalize(
  statistics: Statistics, rows: jax.Array, limit: float = jnp.inf
) -> jax.Array:
  """Rows `[..., ...]` of mean 0 and variance 1, cut off at `limit` both ways."""
  normal = (rows - statistics.mean) / statistics.std
  return jnp.clip(normal, -limit, limit)


def denormalize(statistics: Statistics, rows: jax.Array) -> jax.Array:
  """Back again, but for what was cut off."""
  return statistics.mean + statistics.std * rows


def popart(
  linear: Mapping[str, jax.Array], before: Statistics, after: Statistics
) -> dict[str, jax.Array]:
  """A linear layer whose normalized outputs mean the same by newer statistics.

  See van Hasselt et al. 2016, https://arxiv.org/abs/1602.07714.

  Args:
    linear: `w` `[F, 1]` and `b` `[1]`.
    before: what its outputs were normalized by, of numbers.
    after: what they shall be.
  """
  return {
    'w': linear['w'] * before.std / after.std,
    'b': (before.std * linear['b'] + before.mean - after.mean) / after.std,
  }
