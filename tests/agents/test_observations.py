"""Observations of several parts: one vector that can be taken apart again."""

from __future__ import annotations

import pickle

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from hypothesis import given, settings
from hypothesis import strategies as st

from callsheet.agents.networks import torso
from callsheet.agents.observations import PackedArray, check_vectors, pack, unpack
from callsheet.errors import UsageError

SPEC = PackedArray(
  {
    'height': specs.Array((), np.float32),
    'camera': specs.BoundedArray((2, 2, 1), np.uint8, 0, 255),
    'arm': specs.Array((3,), np.int32),
  },
  'observation',
)
PARTS = {
  'height': np.array([0.5, -1.5]),
  'camera': np.arange(8).reshape(2, 2, 2, 1),
  'arm': np.array([[7, 8, 9], [10, 11, 12]]),
}


def test_parts_lie_in_their_order():
  packed = pack(SPEC, PARTS)
  assert packed.dtype == SPEC.dtype == np.float32
  assert SPEC.shape == (8,)
  np.testing.assert_array_equal(
    packed, [[0.5, 0, 1, 2, 3, 7, 8, 9], [-1.5, 4, 5, 6, 7, 10, 11, 12]]
  )


@pytest.mark.parametrize('of', [np.asarray, jnp.asarray])
def test_unpacking_gives_shapes_and_dtypes_back(of):
  parts = unpack(SPEC, of(pack(SPEC, PARTS)))
  assert list(parts) == ['height', 'camera', 'arm']
  for name, part in parts.items():
    assert part.dtype == SPEC.parts[name].dtype
    np.testing.assert_array_equal(part, PARTS[name])


@settings(max_examples=25, deadline=None)
@given(
  shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=4),
  leading=st.integers(1, 4),
)
def test_unpack_undoes_pack(shapes, leading):
  spec = PackedArray(
    {str(i): specs.Array(shape, np.float32) for i, shape in enumerate(shapes)}
  )
  rng = np.random.default_rng(0)
  parts = {
    name: rng.normal(size=(leading, *part.shape)).astype(np.float32)
    for name, part in spec.parts.items()
  }
  packed = pack(spec, parts)
  for name, part in unpack(spec, packed).items():
    np.testing.assert_array_equal(part, parts[name])
  # Of sequences, too.
  for name, part in unpack(spec, packed[:, None]).items():
    np.testing.assert_array_equal(part[:, 0], parts[name])


def test_a_spec_travels_with_its_parts():
  again = pickle.loads(pickle.dumps(SPEC))
  assert again == SPEC and again.parts == SPEC.parts and again.name == 'observation'
  assert SPEC.replace(name='seen').parts == SPEC.parts
  assert PackedArray({'a': specs.Array((8,), np.float32)}) != SPEC


def test_what_has_no_parts_is_refused():
  with pytest.raises(UsageError, match='has no parts: unpack'):
    unpack(specs.Array((3,), np.float32), np.zeros((1, 3)))


def features(spec, given=None):
  network = hk.without_apply_rng(
    hk.transform(lambda seen: torso('dqn', spec, 'auto', (4,), given)(seen))
  )
  seen = jnp.ones((2, *spec.shape))
  return network.apply(network.init(jax.random.PRNGKey(0), seen), seen)


def test_vectors_are_taken_as_one():
  vectors = PackedArray({'a': specs.Array((2,), np.float32), 'b': SPEC.parts['height']})
  check_vectors('dqn', vectors)
  check_vectors('dqn', specs.Array((84, 84, 4), np.uint8))
  assert features(vectors).shape == (2, 4)


def test_an_image_needs_a_network_that_splits_it_off():
  with pytest.raises(UsageError, match=r"dqn: the part 'camera' .*torso=\.\.\.\)") as e:
    features(SPEC)
  assert '\n' not in str(e.value)

  def own(seen):
    parts = unpack(SPEC, seen)
    return jnp.concatenate([parts['arm'], jnp.mean(parts['camera'], (1, 2))], -1)

  assert features(SPEC, own).shape == (2, 4)
