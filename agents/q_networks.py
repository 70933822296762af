"""Values of actions: one stream or two, with noisy weights, or as distributions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from callsheet.agents.base import Params
from callsheet.agents.dqn_config import DQNConfig
from callsheet.agents.networks import Torso


class Values(NamedTuple):
  """What a network says of the actions in B states.

  Attributes:
    q: the mean return of each action, `[B, A]` float32.
    quantiles: of each action's return, `[B, N, A]`; without a distribution N is 1, and
      that one is the mean.
    taus: the quantiles' probabilities, `[B, N]`.
    logits: of the atoms of a categorical distribution, `[B, A, N]`; else None.
  """

  q: jax.Array
  quantiles: jax.Array
  taus: jax.Array
  logits: jax.Array | None


class QNetwork(NamedTuple):
  """The functions of a network.

  Attributes:
    init: `(key, observation [B, ...]) -> params`.
    values: `(params, key, observation [B, ...], N) -> Values`, with N samples where the
      distribution is implicit. The key draws these and the noise of the weights, the
      same noise for all of the batch. Without a key there is no noise, and the samples
      lie evenly.
  """

  init: Callable[[chex.PRNGKey, chex.Array], Params]
  values: Callable[[Params, chex.PRNGKey | None, chex.Array, int], Values]


def q_network(config: DQNConfig, num_actions: int, torso: Torso) -> QNetwork:
  """The network that the config describes; the torso makes features `[B, F]`."""
  head = {
    'none': _mean,
    'categorical': _categorical,
    'quantile': _quantile,
    'implicit': _implicit,
  }[config.distribution]

  def values(key: chex.PRNGKey | None, inputs: chex.Array, num_samples: int) -> Values:
    return head(config, num_actions, jnp.asarray(torso(inputs)), key, num_samples)

  # Haiku would split the key for each layer, which is slow to compile.
  transformed = hk.without_apply_rng(hk.transform(values))
  return QNetwork(
    init=lambda key, observation: transformed.init(key, None, observation, 1),
    values=transformed.apply,
  )


def atoms(config: DQNConfig) -> jax.Array:
  """The returns that a categorical distribution is over, `[N]` float32."""
  return jnp.linspace(config.v_min, config.v_max, config.num_atoms, dtype=jnp.float32)


def midpoints(count: int) -> jax.Array:
  """The probabilities that lie evenly in (0, 1), `[N]` float32: (i + 1/2) / N."""
  return jnp.asarray((np.arange(count) + 0.5) / count, jnp.float32)


# Heads: what becomes of features `[B, F]`.


def _mean(
  config: DQNConfig,
  num_actions: int,
  features: jax.Array,
  key: chex.PRNGKey | None,
  num_samples: int,
) -> Values:
  q = _streams(config, features, key, num_actions, 1)[..., 0]
  taus = jnp.full((q.shape[0], 1), 0.5)
  return Values(q, q[:, None], taus, None)


def _categorical(
  config: DQNConfig,
  num_actions: int,
  features: jax.Array,
  key: chex.PRNGKey | None,
  num_samples: int,
) -> Values:
  logits = _streams(config, features, key, num_actions, config.num_atoms)
  q = jax.nn.softmax(logits) @ atoms(config)
  return Values(q, q[:, None], jnp.full((q.shape[0], 1), 0.5), logits)


def _quantile(
  config: DQNConfig,
  num_actions: int,
  features: jax.Array,
  key: chex.PRNGKey | None,
  num_samples: int,
) -> Values:
  outputs = _streams(config, features, key, num_actions, config.num_quantiles)
  quantiles = jnp.swapaxes(outputs, -1, -2)
  taus = midpoints(config.num_quantiles)
  taus = jnp.broadcast_to(taus, (len(features), config.num_quantiles))
  return Values(jnp.mean(quantiles, axis=1), quantiles, taus, None)


def _implicit(
  config: DQNConfig,
  num_actions: int,
  features: jax.Array,
  key: chex.PRNGKey | None,
  num_samples: int,
) -> Values:
  shape = (len(features), num_samples)
  if key is None:
    taus = jnp.broadcast_to(midpoints(num_samples), shape)
  else:
    key, own = jax.random.split(key)
    taus = jax.random.uniform(own, shape)
  cosines = jnp.cos(jnp.pi * jnp.arange(config.embedding_size) * taus[..., None])
  embedding = hk.nets.MLP([features.shape[-1]], activate_final=True, name='embedding')
  joined = features[:, None] * embedding(cosines)
  quantiles = _streams(config, joined, key, num_actions, 1)[..., 0]
  return Values(jnp.mean(quantiles, axis=1), quantiles, taus, None)


def _streams(
  config: DQNConfig,
  features: jax.Array,
  key: chex.PRNGKey | None,
  num_actions: int,
  size: int,
) -> jax.Array:
  """So many outputs of each action, `[..., A, size]`, of features `[..., F]`."""
  rows = {'advantage': num_actions, **({'value': 1} if config.dueling else {})}
  sizes = {name: [*config.hidden_sizes[-1:], rows[name] * size] for name in rows}
  if config.noisy:
    outputs = _noisy_layers(features, key, sizes, config.noise_scale)
  else:
    outputs = {name: hk.nets.MLP(sizes[name], name=name)(features) for name in sizes}
  streams = {
    name: each.reshape(*each.shape[:-1], rows[name], size)
    for name, each in outputs.items()
  }
  advantage = streams['advantage']
  if not config.dueling:
    return advantage
  return streams['value'] + advantage - jnp.mean(advantage, axis=-2, keepdims=True)


# Noisy layers: Fortunato et al. 2017, with factorised noise.


def _noisy_layers(
  features: jax.Array,
  key: chex.PRNGKey | None,
  sizes: Mapping[str, Sequence[int]],
  scale: float,
) -> dict[str, jax.Array]:
  """Dense layers of so many outputs, by the stream's name, with ReLUs between them.

  All rows have the same noise; without a key there is none.
  """
  widths = {name: [features.shape[-1], *sizes[name]] for name in sizes}
  ends = np.cumsum([width for each in widths.values() for width in _twice(each)])
  noises = None
  if key is not None:
    # One draw for all layers, for each is slow to compile.
    noise = jax.random.normal(key, (int(ends[-1]),))
    noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
    # A gather is where XLA's fusions end: else each layer would draw all of it anew.
    noise = jnp.take(noise, jnp.arange(ends[-1]))
    noises = iter(jnp.split(noise, ends[:-1]))
  streams = {}
  for name in sizes:
    outputs = features
    for i, size in enumerate(sizes[name]):
      inputs = jax.nn.relu(outputs) if i else outputs
      drawn = None if noises is None else (next(noises), next(noises))
      outputs = NoisyLinear(size, scale, name=f'{name}_{i}')(inputs, drawn)
    streams[name] = outputs
  return streams


def _twice(widths: Sequence[int]) -> list[int]:
  """The inputs and outputs of layers that lie between these widths, in turn."""
  return list(itertools.chain.from_iterable(itertools.pairwise(widths)))


class NoisyLinear(hk.Module):  # type: ignore[misc]
  """A dense layer whose weights and biases have a mean and a scale of their noise.

  Args:
    size: of its outputs.
    scale: sigma_0; at first a weight's noise has the scale sigma_0 / sqrt(inputs).
    name: of the module.
  """

  def __init__(self, size: int, scale: float, name: str | None = None) -> None:
    super().__init__(name=name)
    self._size, self._scale = size, scale

  def __call__(
    self, inputs: jax.Array, noise: tuple[jax.Array, jax.Array] | None
  ) -> jax.Array:
    """`[..., F]` to `[..., size]`, with the noise `[F]` of inputs and `[size]` of
    outputs, whose outer product is the weights'; None for the means alone."""
    size, bound = inputs.shape[-1], 1 / np.sqrt(inputs.shape[-1])
    mean = hk.initializers.RandomUniform(-bound, bound)
    constant = hk.initializers.Constant(self._scale * bound)
    w = hk.get_parameter('w', (size, self._size), init=mean)
    b = hk.get_parameter('b', (self._size,), init=mean)
    w_scale = hk.get_parameter('w_scale', (size, self._size), init=constant)
    b_scale = hk.get_parameter('b_scale', (self._size,), init=constant)
    outputs: jax.Array = inputs @ w + b
    if noise is None:
      return outputs
    at_input, at_output = noise
    spread: jax.Array = (inputs * at_input) @ w_scale + b_scale
    return outputs + spread * at_output
