"""What an observation becomes before an agent's head: a torso of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import chex
import haiku as hk
import jax
import jax.numpy as jnp
from dm_env import specs

from callsheet.agents.checks import describe
from callsheet.agents.convolution import Convolution, Padding
from callsheet.agents.observations import check_vectors
from callsheet.errors import UsageError

Torso: TypeAlias = Callable[[chex.Array], chex.Array]
Kind = Literal['auto', 'mlp', 'nature', 'shallow', 'minatar', 'impala']

# The smallest images that each kind's strides leave something of.
_SMALLEST = {'nature': 36, 'shallow': 20, 'minatar': 3, 'impala': 8}


def torso(
  agent: str,
  observation: specs.Array,
  kind: str,
  hidden_sizes: Sequence[int],
  given: Torso | None = None,
  *,
  looped: bool = False,
) -> Torso:
  """Observations `[B, ...]` to features `[B, F]`, float32, as a haiku function.

  It builds its modules anew in every call, so it belongs inside of `hk.transform`.
  Numbers of a discrete observation are taken one-hot; pixels, which are uint8, are
  scaled to [0, 1].

  Args:
    agent: for messages.
    observation: of one environment.
    kind:
      'mlp': dense layers.
      'nature': three convolutions, of Mnih et al. 2015
        (https://doi.org/10.1038/nature14236), and dense layers.
      'shallow': two convolutions, of Mnih et al. 2013
        (https://arxiv.org/abs/1312.5602), and dense layers; an update takes half of
        what it takes with 'nature'.
      'minatar': one convolution, of Young and Tian 2019
        (https://arxiv.org/abs/1903.03176), and dense layers.
      'impala': the residual network of Espeholt et al. 2018
        (https://arxiv.org/abs/1802.01561), and dense layers.
      'auto': 'mlp' for a vector, else 'nature', or 'minatar' for images that are too
        small for it.
    hidden_sizes: of the dense layers, with a ReLU behind each.
    given: takes the place of all that; it gets the observation as it is.
    looped: whether the agent's update trains it in a loop of its own, so that large
      images need a `Convolution` too.

  Raises:
    UsageError: the kind is unknown, or can't take the observation.
  """
  if given is not None:
    return given
  chosen = _chosen(agent, observation, kind)

  def features(inputs: chex.Array) -> chex.Array:
    if isinstance(observation, specs.DiscreteArray):
      inputs = jax.nn.one_hot(inputs, observation.num_values)
    outputs = jnp.asarray(inputs, jnp.float32)
    if observation.dtype == jnp.uint8 and chosen != 'mlp':
      outputs /= 255
    if chosen != 'mlp':
      outputs = hk.Flatten()(_CONVOLUTIONS[chosen](outputs, looped))
    if hidden_sizes:
      outputs = hk.nets.MLP(hidden_sizes, activate_final=True, name='torso')(outputs)
    return outputs

  return features


def _chosen(agent: str, observation: specs.Array, kind: str) -> str:
  """The kind that 'auto' stands for, once it is known that it fits."""
  if kind not in get_args(Kind):
    raise UsageError(
      f'{agent}: no torso {kind!r}; there are {", ".join(get_args(Kind))}: '
      f"{agent}(spec, Config(torso='auto')), or a network of your own, torso=..."
    )
  check_vectors(agent, observation)
  vector = isinstance(observation, specs.DiscreteArray) or (
    len(observation.shape) == 1 and observation.dtype.kind in 'fiub'
  )
  image = len(observation.shape) == 3 and observation.dtype.kind in 'fiub'
  if not vector and not image:
    raise UsageError(
      f'{agent}: the observation is {describe(observation)}, expected a vector or an '
      'image [height, width, channels]; flatten it in the environment, or give your '
      f'own network: {agent}(spec, torso=...)'
    )
  if kind == 'auto':
    large = image and min(observation.shape[:2]) >= _SMALLEST['nature']
    kind = 'mlp' if vector else 'nature' if large else 'minatar'
  if vector != (kind == 'mlp') or (
    image and min(observation.shape[:2]) < _SMALLEST[kind]
  ):
    expected = (
      'a vector'
      if kind == 'mlp'
      else f'an image [height, width, channels] of at least {_SMALLEST[kind]} pixels '
      'each way'
    )
    raise UsageError(
      f'{agent}: the observation is {describe(observation)}, expected {expected} for '
      f"the torso {kind!r}; take torso='auto', or give your own network: "
      f'{agent}(spec, torso=...)'
    )
  return kind


def _nature(images: chex.Array, looped: bool) -> chex.Array:
  for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
    images = jax.nn.relu(_layer(looped, channels, size, stride, 'VALID')(images))
  return images


def _shallow(images: chex.Array, looped: bool) -> chex.Array:
  for channels, size, stride in ((16, 8, 4), (32, 4, 2)):
    images = jax.nn.relu(_layer(looped, channels, size, stride, 'VALID')(images))
  return images


def _minatar(images: chex.Array, looped: bool) -> chex.Array:
  # So small that updates share a dispatch, which is a loop.
  return jax.nn.relu(Convolution(16, 3)(images))


def _impala(images: chex.Array, looped: bool) -> chex.Array:
  def layer(channels: int) -> Torso:
    return _layer(looped, channels, 3, 1, 'SAME')

  for channels in (16, 32, 32):
    images = layer(channels)(images)
    images = hk.max_pool(images, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
    for _ in range(2):
      inner = jax.nn.relu(images)
      inner = jax.nn.relu(layer(channels)(inner))
      images = jnp.add(images, layer(channels)(inner))
  return jax.nn.relu(images)


def _layer(
  looped: bool, channels: int, size: int, stride: int, padding: Padding
) -> Torso:
  made: Torso = (
    Convolution(channels, size, stride, padding)
    if looped
    else hk.Conv2D(channels, size, stride, padding=padding)
  )
  return made


_CONVOLUTIONS = {
  'nature': _nature,
  'shallow': _shallow,
  'minatar': _minatar,
  'impala': _impala,
}
