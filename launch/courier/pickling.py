"""Values to bytes and back: pickle protocol 5, large arrays beside the pickle.

Arrays arrive as numpy arrays with memory of their own: writable, unless they were
read-only where they came from (as jax.Arrays always are). Buffers of 4 KB and more are
sent from where they lie: an array that is changed while it is being sent may tear.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections import ChainMap, deque
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

SMALLEST_BUFFER = 4096
# What needs none of our reducers and no buffer beside the pickle.
_PLAIN = frozenset({int, float, bool, str, type(None)})
_SEARCHED = 256 * 1024
_MAIN = b'\x8c\x08__main__'

Chunk = bytes | bytearray | memoryview
Pickled = tuple[list[Chunk], list[memoryview]]
_Reducer = Callable[[Any], Any]
_NOTHING: Pickled = [pickle.dumps(((), {}), 5)], []


def dumps(value: object) -> Pickled:
  """The pickle in chunks, and the buffers that travel beside it.

  What plain pickle can't do (lambdas, local classes, classes of `__main__`, which is
  another module over there) goes through cloudpickle, by value.

  Raises:
    Exception: whatever the value's own pickling raises.
  """
  if type(value) in _PLAIN:
    return [pickle.dumps(value, 5)], []
  if len(sys.modules) != _seen[0] or len(copyreg.dispatch_table) != _seen[1]:
    _refresh()
  try:
    encoder = _spare.pop()
  except IndexError:
    encoder = _Encoder(pickle.Pickler)
  try:
    pickled = encoder.encode(value)
  except (pickle.PicklingError, AttributeError, TypeError) as error:
    return _by_value(value, error)
  _spare.append(encoder)
  for chunk in pickled[0]:
    if type(chunk) is bytes and _MAIN in chunk and len(chunk) < _SEARCHED:
      return _by_value(value, None)
  return pickled


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled:
  """The same for the arguments of a call, most of which are plain and few."""
  if not kwargs:
    if not args:
      return _NOTHING
    if _PLAIN.issuperset(map(type, args)):
      return [pickle.dumps((args, kwargs), 5)], []
  return dumps((args, kwargs))


def loads(body: Chunk, buffers: Sequence[memoryview]) -> Any:
  """The value again; `body` may be used again afterwards, `buffers` may not."""
  return pickle.loads(body, buffers=buffers) if buffers else pickle.loads(body)


class _Encoder:
  """A pickler that is used again and again: making one costs more than a small pickle.

  Large bytes are handed to its file uncopied, hence the chunks.
  """

  __slots__ = ('_buffers', '_chunks', '_clear', '_dump', 'write')

  def __init__(self, pickler: Callable[..., Any]) -> None:
    self._chunks: list[Chunk] = []
    self._buffers: list[memoryview] = []
    self.write = self._chunks.append
    writing = pickler(self, 5, buffer_callback=self._beside)
    own = getattr(writing, 'dispatch_table', None)
    writing.dispatch_table = _reducers if own is None else ChainMap(_reducers, own)
    self._dump, self._clear = writing.dump, writing.clear_memo

  def encode(self, value: object) -> Pickled:
    self._dump(value)
    self._clear()
    pickled = self._chunks.copy(), self._buffers.copy()
    self._chunks.clear()
    self._buffers.clear()
    return pickled

  def _beside(self, buffer: pickle.PickleBuffer) -> bool:
    raw = buffer.raw()
    if raw.nbytes < SMALLEST_BUFFER:
      return True
    self._buffers.append(raw)
    return False


def _by_value(value: object, error: Exception | None) -> Pickled:
  try:
    import cloudpickle
  except ImportError:
    if error is None:
      raise pickle.PicklingError('a class of __main__ needs cloudpickle') from None
    raise error from None
  try:
    return _Encoder(cloudpickle.Pickler).encode(value)
  except Exception as worse:
    raise worse from error


_spare: deque[_Encoder] = deque(maxlen=64)
_reducers: MutableMapping[type, _Reducer] = {}
_seen = (-1, -1)


def _refresh() -> None:
  """Modules have been imported: there may be new types to reduce."""
  global _reducers, _seen
  _seen = len(sys.modules), len(copyreg.dispatch_table)
  reducers: dict[type, _Reducer] = dict(copyreg.dispatch_table)
  numpy_array = getattr(sys.modules.get('numpy'), 'ndarray', None)
  if numpy_array is not None:
    reducers[numpy_array] = _reduce_array
  jax_array = getattr(sys.modules.get('jax._src.array'), 'ArrayImpl', None)
  if jax_array is not None:
    reducers[jax_array] = _reduce_jax_array
  if reducers != _reducers:
    _reducers = reducers
    _spare.clear()


def _reduce_array(array: Any) -> Any:
  """Numpy's own way, in half the time, for the arrays that are sent most."""
  dtype = array.dtype
  # Of a dtype that was pickled itself `isbuiltin` is 0, uint8 like any other.
  if dtype.kind in 'biufc' and dtype.isbuiltin != 2 and dtype.metadata is None:
    if array.flags.c_contiguous:
      return type(array), (array.shape, dtype.str, pickle.PickleBuffer(array))
    # Axes in another order than that of memory, as in the stacks of a replay, or a part
    # of some memory: numpy would turn them around one element at a time.
    strides = array.strides
    if array.size and min(strides) > 0:
      order = sorted(range(array.ndim), key=lambda i: -strides[i])
      memory = array.transpose(order)
      if not memory.flags.c_contiguous:
        memory = memory.copy()
        strides = tuple(memory.strides[order.index(i)] for i in range(array.ndim))
      buffer = pickle.PickleBuffer(memory)
      return type(array), (array.shape, dtype.str, buffer, 0, strides)
  return array.__reduce_ex__(5)


def _reduce_jax_array(array: Any) -> Any:
  """As a numpy array; jax's own way copies it into the pickle."""
  import numpy as np

  value = np.asarray(array)
  if value.dtype.isbuiltin == 1:
    return _reduce_array(value)
  # bfloat16 and its like have no buffer of their own.
  raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
  return _view, (raw, value.dtype, value.shape)


def _view(raw: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
  return raw.view(dtype).reshape(shape)
