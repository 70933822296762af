"""Products of matrices make of images what XLA's convolution makes of them."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.convolution import Convolution, convolve
from callsheet.agents.networks import torso


def reference(images, kernel, stride, padding):
  return jax.lax.conv_general_dilated(
    images,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@settings(deadline=None, max_examples=8)
@given(
  height=st.integers(4, 12),
  width=st.integers(4, 12),
  size=st.integers(1, 4),
  stride=st.integers(1, 3),
  padding=st.sampled_from(['VALID', 'SAME']),
)
def test_outputs_and_gradients(height, width, size, stride, padding):
  rng = np.random.default_rng(height * width)
  images = jnp.asarray(rng.normal(size=(2, height, width, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(size, size, 3, 5)), jnp.float32)

  def of(function):
    def total(images, kernel):
      outputs = function(images, kernel, stride, padding)
      return jnp.sum(jnp.sin(outputs)), outputs

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(images, kernel)

  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=2e-4),
    of(convolve),
    of(reference),
  )


@pytest.mark.parametrize('padding', ['VALID', 'SAME'])
def test_it_has_the_parameters_of_haikus(padding):
  images = jnp.ones((2, 9, 9, 3))

  def of(make):
    network = hk.without_apply_rng(hk.transform(lambda images: make()(images)))
    return network, network.init(jax.random.PRNGKey(0), images)

  ours, params = of(lambda: Convolution(4, 3, 2, padding))
  theirs, others = of(lambda: hk.Conv2D(4, 3, 2, padding=padding))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, others)
  np.testing.assert_allclose(
    ours.apply(others, images), theirs.apply(others, images), atol=1e-5
  )


@pytest.mark.parametrize('kind', ['nature', 'impala'])
def test_a_torso_in_a_loop_is_the_same_network(kind):
  spec = specs.BoundedArray((40, 40, 2), np.uint8, 0, 255)
  networks = [
    hk.without_apply_rng(hk.transform(torso('test', spec, kind, (8,), looped=looped)))
    for looped in (False, True)
  ]
  images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 2)).astype(np.uint8)
  params = networks[0].init(jax.random.PRNGKey(0), images)
  one, other = (network.apply(params, images) for network in networks)
  np.testing.assert_allclose(one, other, atol=1e-4)


def test_no_convolution_is_left_in_a_loop_on_the_cpu():
  """Neither forward nor backward."""
  kernel = jnp.ones((3, 3, 2, 4))

  def step(kernel, images):
    gradient = jax.grad(lambda k: jnp.sum(convolve(images, k, 1, 'VALID') ** 2))
    return kernel - gradient(kernel), 0.0

  looped = jax.jit(lambda kernel, images: jax.lax.scan(step, kernel, images))
  images = jnp.ones((3, 1, 6, 6, 2))
  compiled = looped.lower(kernel, images).compile().as_text()
  assert 'while' in compiled
  assert 'convolution(' not in compiled
