"""Gymnasium's spaces as specs, and what they hold as one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from dm_env import specs
from gymnasium import spaces

from callsheet.agents.observations import PackedArray, pack
from callsheet.errors import UsageError
from callsheet.nodes.environments import Array, narrow

_WAYS_OUT = {
  'observation': 'flatten it with wrappers=[gymnasium.wrappers.FlattenObservation] or '
  'one of your own',
  'action': 'wrap the environment with one of gymnasium.wrappers.TransformAction',
}


def space_to_spec(space: spaces.Space[Any], name: str) -> specs.Array:
  """The spec of a space, in 32 bits; a Discrete counts from 0.

  Args:
    space: a Box or a Discrete; an observation may be a Dict or Tuple of
      them, too.
    name: 'observation' or 'action'.

  Raises:
    UsageError: any other space.
  """
  if isinstance(space, spaces.Discrete):
    return specs.DiscreteArray(int(space.n), np.int32, name)
  if isinstance(space, spaces.Box):
    dtype = narrow(space.dtype)
    with np.errstate(over='ignore'):  # The largest float64 is an infinite float32.
      low, high = space.low.astype(dtype), space.high.astype(dtype)
    return specs.BoundedArray(space.shape, dtype, low, high, name)
  if isinstance(space, spaces.Dict | spaces.Tuple) and name == 'observation':
    return PackedArray({path: _part(path, of) for path, of in _parts(space)}, name)
  several = ' or a Dict of them' if name == 'observation' else ''
  raise UsageError(
    f'the {name} space is {type(space).__name__}, expected Box or Discrete{several}: '
    f'{_WAYS_OUT[name]}'
  )


def batch_to_array(space: spaces.Space[Any], spec: specs.Array, batch: Any) -> Array:
  """A batch of a space's values, as a fresh array `[B, ...]` of the spec, in C order.

  Args:
    space: of one environment.
    spec: what `space_to_spec` made of it.
    batch: as a `gymnasium.vector.VectorEnv` gives it.
  """
  if not isinstance(spec, PackedArray):
    if isinstance(space, spaces.Discrete):
      batch = batch - space.start
    # A copy: environments may hand out their own buffer.
    return np.array(batch, spec.dtype, order='C')
  parts = {}
  for path, part in _parts(space):
    values = batch
    for name in path.split('/'):
      values = values[int(name) if isinstance(values, tuple) else name]
    if isinstance(part, spaces.Discrete):
      values = np.eye(int(part.n), dtype=np.float32)[values - part.start]
    parts[path] = values
  return pack(spec, parts)


def _parts(space: Any, above: str = '') -> Iterator[tuple[str, spaces.Space[Any]]]:
  """The spaces below a Dict or a Tuple, each with its path in it."""
  below = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
  for name, part in below:
    path = f'{above}{name}'
    if isinstance(part, spaces.Dict | spaces.Tuple):
      yield from _parts(part, f'{path}/')
    else:
      yield path, part


def _part(path: str, space: spaces.Space[Any]) -> specs.Array:
  if isinstance(space, spaces.Discrete):
    return specs.BoundedArray((int(space.n),), np.float32, 0, 1, path)
  if isinstance(space, spaces.MultiBinary):
    return specs.BoundedArray(space.shape, np.int8, 0, 1, path)
  if isinstance(space, spaces.Box):
    return space_to_spec(space, path)
  raise UsageError(
    f'the part {path!r} of the observation space is {type(space).__name__}, expected '
    'Box, Discrete or MultiBinary: take it out with wrappers=[partial('
    'gymnasium.wrappers.FilterObservation, filter_keys=[...])]'
  )
