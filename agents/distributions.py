"""Distributions of actions, as arrays that pass through jit.

distrax has them too, but takes a second to import: the losses do, an actor never needs
to.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp


class Distribution(Protocol):
  """Of actions, one for each row `[...]`."""

  def sample(self, key: chex.PRNGKey) -> jax.Array:
    """One action each."""

  def mode(self) -> jax.Array:
    """The likeliest action of each."""

  def log_prob(self, action: jax.Array) -> jax.Array:
    """The logarithm of probability or density, `[...]`."""

  def entropy(self) -> jax.Array:
    """In nats, `[...]`."""


class Categorical(NamedTuple):
  """Of actions 0 to A - 1.

  Attributes:
    logits: `[..., A]`.
  """

  logits: jax.Array

  def sample(self, key: chex.PRNGKey) -> jax.Array:
    """See `Distribution`; int32."""
    return jax.random.categorical(key, self.logits).astype(jnp.int32)

  def mode(self) -> jax.Array:
    """See `Distribution`; int32."""
    return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """See `Distribution`."""
    logs = jax.nn.log_softmax(self.logits)
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]

  def entropy(self) -> jax.Array:
    """See `Distribution`."""
    logs = jax.nn.log_softmax(self.logits)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1)


class Gaussian(NamedTuple):
  """Of vectors of A numbers, each by itself.

  Attributes:
    mean: `[..., A]`.
    log_std: `[..., A]`, of the standard deviation.
  """

  mean: jax.Array
  log_std: jax.Array

  def sample(self, key: chex.PRNGKey) -> jax.Array:
    """See `Distribution`."""
    noise = jax.random.normal(key, self.mean.shape)
    return self.mean + jnp.exp(self.log_std) * noise

  def mode(self) -> jax.Array:
    """See `Distribution`."""
    return self.mean

  def log_prob(self, action: jax.Array) -> jax.Array:
    """See `Distribution`."""
    errors = (action - self.mean) * jnp.exp(-self.log_std)
    each = 0.5 * errors**2 + self.log_std + 0.5 * math.log(2 * math.pi)
    return -jnp.sum(each, axis=-1)

  def entropy(self) -> jax.Array:
    """See `Distribution`."""
    return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)
