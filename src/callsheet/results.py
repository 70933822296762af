"""Large results, made where they will be sent from.

A handler that fills its result here spares the courier a copy: on one host the arrays
lie in the memory that the caller will map. Elsewhere they are recycled buffers, whose
pages need not be made anew.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from callsheet.buffers import allocate

if TYPE_CHECKING:  # A service without arrays needs no numpy.
  import numpy as np
  from numpy.typing import NDArray

SMALLEST = 256 * 1024
"""Bytes of a result from which on it pays."""

_SMALLEST_BUFFER = 4096  # what is smaller travels in the pickle

Reserve = Callable[[Sequence[int]], 'list[memoryview] | None']

_reserving = threading.local()


def empty(
  shapes: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
) -> dict[str, NDArray[Any]]:
  """Arrays of undefined contents for the result of the handler that runs.

  They belong to the caller once they are returned: keep none of them, and hand them
  out in this order, whole, before any other array, or they are copied after all.

  Args:
    shapes: shape and dtype of each, by name.
  """
  import numpy as np

  sizes = {
    name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in shapes.items()
  }
  beside = [name for name, size in sizes.items() if size >= _SMALLEST_BUFFER]
  lengths = [sizes[name] for name in beside]
  if sum(lengths) < SMALLEST:
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
  reserve: Reserve | None = getattr(_reserving, 'reserve', None)
  found = None if reserve is None else reserve(lengths)
  lent = dict(zip(beside, found or allocate(lengths), strict=True))
  return {
    name: np.frombuffer(lent[name], dtype).reshape(shape)
    if name in lent
    else np.empty(shape, dtype)
    for name, (shape, dtype) in shapes.items()
  }


def reserve_by(reserve: Reserve | None) -> None:
  """From now on the large results of this thread's handlers come from there."""
  _reserving.reserve = reserve
