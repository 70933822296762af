"""Values to bytes and back: pickle protocol 5, large arrays beside the pickle.

Arrays arrive as numpy arrays with memory of their own: writable, unless they were
read-only where they came from (as jax.Arrays always are). Buffers of 4 KB and more are
sent from where they lie: an array that is changed while it is being sent may tear.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Sequence
from typing import Any

SMALLEST_BUFFER = 4096
_SEARCHED = 256 * 1024
_MAIN = b'\x8c\x08__main__'

Chunk = bytes | memoryview
Pickled = tuple[list[Chunk], list[memoryview]]


class _Writer:
  """The file that a pickler writes to: large bytes are kept as they are, uncopied."""

  __slots__ = ('write',)

  def __init__(self, write: Callable[[Any], object]) -> None:
    self.write = write


def dumps(value: object) -> Pickled:
  """The pickle in chunks, and the buffers that travel beside it.

  What plain pickle can't do (lambdas, local classes, classes of `__main__`, which is
  another module over there) goes through cloudpickle, by value.

  Raises:
    Exception: whatever the value's own pickling raises.
  """
  try:
    pickled = _dump(pickle.Pickler, value)
  except (pickle.PicklingError, AttributeError, TypeError) as error:
    cloud = _cloudpickler()
    if cloud is None:
      raise
    try:
      return _dump(cloud, value)
    except Exception as worse:
      raise worse from error
  for chunk in pickled[0]:
    if len(chunk) < _SEARCHED and _MAIN in bytes(chunk):
      cloud = _cloudpickler()
      return pickled if cloud is None else _dump(cloud, value)
  return pickled


def loads(body: Chunk | bytearray, buffers: Sequence[memoryview]) -> Any:
  """The value again; `body` may be used again afterwards, `buffers` may not."""
  return pickle.loads(body, buffers=buffers)


def _dump(pickler: Callable[..., Any], value: object) -> Pickled:
  chunks: list[Chunk] = []
  buffers: list[memoryview] = []

  def beside(buffer: pickle.PickleBuffer) -> bool:
    raw = buffer.raw()
    if raw.nbytes < SMALLEST_BUFFER:
      return True
    buffers.append(raw)
    return False

  writing = pickler(_Writer(chunks.append), 5, buffer_callback=beside)
  table = _reducers()
  if table is not None:
    own = getattr(writing, 'dispatch_table', None)
    writing.dispatch_table = table if own is None else ChainMap(table, own)
  writing.dump(value)
  return chunks, buffers


def _cloudpickler() -> Callable[..., Any] | None:
  try:
    import cloudpickle
  except ImportError:
    return None
  pickler: Callable[..., Any] = cloudpickle.Pickler
  return pickler


_Table = dict[type, Callable[[Any], Any]]
_known: tuple[int, _Table] | None = None


def _reducers() -> _Table | None:
  """How jax.Arrays are pickled, in a process that has them; None in all others.

  jax's own way copies the array into the pickle.
  """
  global _known
  module = sys.modules.get('jax._src.array')
  array = getattr(module, 'ArrayImpl', None)
  if array is None:
    return None
  if _known is None or _known[0] != len(copyreg.dispatch_table):
    _known = (
      len(copyreg.dispatch_table),
      {**copyreg.dispatch_table, array: _reduce_jax_array},
    )
  return _known[1]


def _reduce_jax_array(array: Any) -> Any:
  import numpy as np

  value = np.asarray(array)
  if value.dtype.isbuiltin == 1:
    return value.__reduce_ex__(5)
  # bfloat16 and its like have no buffer of their own.
  raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
  return _view, (raw, value.dtype, value.shape)


def _view(raw: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
  return raw.view(dtype).reshape(shape)
