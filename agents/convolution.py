"""Convolutions that are as fast inside a loop as outside of it, on CPUs too."""

from __future__ import annotations

import math
from typing import Literal

import chex
import haiku as hk
import jax
import jax.numpy as jnp

Padding = Literal['VALID', 'SAME']


class Convolution(hk.Module):  # type: ignore[misc]
  """`hk.Conv2D`, with parameters of the same shapes, for what is trained in a loop.

  Inside a `lax.scan` XLA's convolutions take some forty times as long on CPUs
  (https://github.com/jax-ml/jax/issues/12868); products of matrices don't. Outside of
  one they are slower than a convolution, by two or three times for large images.

  Args:
    channels: of the output.
    size: of the square kernel.
    stride: each way.
    padding: 'VALID' or 'SAME'.
    name: of the module.
  """

  def __init__(
    self,
    channels: int,
    size: int,
    stride: int = 1,
    padding: Padding = 'VALID',
    name: str = 'conv2_d',
  ) -> None:
    super().__init__(name=name)
    self._channels, self._size, self._stride = channels, size, stride
    self._padding = padding

  def __call__(self, inputs: chex.Array) -> jax.Array:
    """Images `[B, H, W, C]` to `[B, H', W', channels]`."""
    images = jnp.asarray(inputs)
    shape = (self._size, self._size, images.shape[-1], self._channels)
    scale = 1 / math.sqrt(math.prod(shape[:-1]))
    init = hk.initializers.TruncatedNormal(stddev=scale)
    kernel = hk.get_parameter('w', shape, images.dtype, init=init)
    bias = hk.get_parameter('b', shape[-1:], images.dtype, init=jnp.zeros)
    outputs: jax.Array = bias + convolve(images, kernel, self._stride, self._padding)
    return outputs


def convolve(
  images: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
  """`lax.conv_general_dilated`, on CPUs by products of matrices.

  Args:
    images: `[B, H, W, C]`.
    kernel: `[size, size, C, channels]`.
    stride: each way.
    padding: 'VALID' or 'SAME'.
  """

  def native(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      images,
      kernel,
      (stride, stride),
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  def products(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return _products(images, kernel, stride, padding)

  convolved: jax.Array = jax.lax.platform_dependent(
    images, kernel, cpu=products, default=native
  )
  return convolved


def _products(
  images: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
  size, _, _, channels = kernel.shape
  if padding == 'SAME':
    images = jnp.pad(images, [(0, 0), *_same(images.shape[1:3], size, stride), (0, 0)])
  if stride > 1 and size % stride == 0:
    # Blocks of pixels become channels: then each kernel moves on by one.
    images, kernel = _blocks(images, stride), _kernel_blocks(kernel, stride)
    size, stride = size // stride, 1
  count, height, width, depth = images.shape
  height, width = ((length - size) // stride + 1 for length in (height, width))
  columns = [
    images[:, :, left : left + stride * (width - 1) + 1 : stride]
    for left in range(size)
  ]
  rows = jnp.concatenate(columns, axis=-1)
  convolved = jnp.zeros((count * height * width, channels), images.dtype)
  for top in range(size):
    row = rows[:, top : top + stride * (height - 1) + 1 : stride]
    # Flat, or XLA turns it around before it multiplies.
    flat = jnp.reshape(row, (-1, size * depth))
    convolved += flat @ jnp.reshape(kernel[top], (size * depth, channels))
  return jnp.reshape(convolved, (count, height, width, channels))


def _blocks(images: jax.Array, side: int) -> jax.Array:
  """`[B, H, W, C]` to `[B, H / side, W / side, side * side * C]`."""
  count, height, width, depth = images.shape
  height, width = height // side, width // side
  images = images[:, : height * side, : width * side]
  images = jnp.reshape(images, (count, height, side, width, side, depth))
  return jnp.reshape(
    jnp.swapaxes(images, 2, 3), (count, height, width, side * side * depth)
  )


def _kernel_blocks(kernel: jax.Array, side: int) -> jax.Array:
  """A kernel for images in blocks."""
  size, _, depth, channels = kernel.shape
  parts = (size // side, side, size // side, side, depth, channels)
  kernel = jnp.swapaxes(jnp.reshape(kernel, parts), 1, 2)
  return jnp.reshape(
    kernel, (size // side, size // side, side * side * depth, channels)
  )


def _same(lengths: tuple[int, ...], size: int, stride: int) -> list[tuple[int, int]]:
  """What 'SAME' pads before and behind each length."""
  wanted = [(-(-length // stride) - 1) * stride + size for length in lengths]
  added = [
    max(0, all_of_it - length)
    for all_of_it, length in zip(wanted, lengths, strict=True)
  ]
  return [(each // 2, each - each // 2) for each in added]
