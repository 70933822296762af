"""Observations of several parts: they travel as one vector, a network splits them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from dm_env import specs

from callsheet.errors import UsageError


class PackedArray(specs.Array):  # type: ignore[misc]
  """The spec of a float32 vector, in which named arrays lie one behind the other.

  A discrete part is there as its one-hot vector. `unpack` gives the parts back.

  Args:
    parts: by name, in their order in the vector; none is discrete.
    name: of the whole.
  """

  __slots__ = ('_parts',)

  def __init__(self, parts: Mapping[str, specs.Array], name: str | None = None) -> None:
    self._parts = dict(parts)
    size = sum(math.prod(part.shape) for part in self._parts.values())
    super().__init__((size,), np.float32, name)

  @property
  def parts(self) -> dict[str, specs.Array]:
    """The parts by name, in their order."""
    return dict(self._parts)

  def __repr__(self) -> str:
    return f'PackedArray(parts={self._parts}, name={self.name!r})'

  def __eq__(self, other: object) -> bool:
    return isinstance(other, PackedArray) and self._parts == other._parts

  def __reduce__(self) -> tuple[Any, ...]:
    return PackedArray, (self._parts, self.name)


def unpack(spec: specs.Array, observation: Any) -> dict[str, Any]:
  """The parts of packed observations, each in its own shape and dtype.

  Args:
    spec: of one observation.
    observation: `[..., N]`, of numpy or JAX.

  Returns:
    `[..., *shape]` each, by name.

  Raises:
    UsageError: the spec has no parts.
  """
  if not isinstance(spec, PackedArray):
    raise UsageError(
      f'{spec} has no parts: unpack(spec.observation, observation) is for environments '
      'whose observations are dicts'
    )
  leading = observation.shape[:-1]
  return {
    part.name: observation[..., part.start : part.stop]
    .reshape((*leading, *part.spec.shape))
    .astype(part.spec.dtype)
    for part in _places(spec)
  }


def pack(spec: PackedArray, parts: Mapping[str, Any]) -> npt.NDArray[np.float32]:
  """A fresh `[B, N]` of parts `[B, *shape]`; it undoes `unpack`."""
  places = list(_places(spec))
  packed = np.empty((len(parts[places[0].name]), *spec.shape), np.float32)
  for part in places:
    packed[:, part.start : part.stop] = np.reshape(parts[part.name], (len(packed), -1))
  return packed


def check_vectors(agent: str, spec: specs.Array) -> None:
  """Refuses images among the parts, which only a network of the user's can take.

  Raises:
    UsageError: names the agent and the part.
  """
  if not isinstance(spec, PackedArray):
    return
  for name, part in spec.parts.items():
    if len(part.shape) > 1:
      raise UsageError(
        f'{agent}: the part {name!r} of the observation has the shape '
        f'{list(part.shape)}, and a torso of its own takes vectors alone; give a '
        f'network that splits them: {agent}(spec, torso=...), with '
        'callsheet.agents.observations.unpack'
      )


class _Place(NamedTuple):
  name: str
  spec: specs.Array
  start: int
  stop: int


def _places(spec: PackedArray) -> Iterator[_Place]:
  start = 0
  for name, part in spec.parts.items():
    stop = start + math.prod(part.shape)
    yield _Place(name, part, start, stop)
    start = stop
