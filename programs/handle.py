"""What stands for a node while the graph is declared: a name typed as its service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from callsheet.errors import NotLaunched


class Handle:
  """A node of a program, to be passed to other nodes.

  Statically it is the service itself (`Program.add` says so), which is why every public
  name on it, and calling, indexing or iterating it, raises NotLaunched. It travels as
  its name; two handles are equal when they name the same node of the same program.
  """

  __slots__ = ('_label', '_name', '_program', '_service')
  _label: str
  _name: str
  _program: str
  _service: object

  def __init__(
    self, program: str, name: str, label: str, service: object = Any
  ) -> None:
    put = object.__setattr__
    put(self, '_program', program)
    put(self, '_name', name)
    put(self, '_label', label)
    put(self, '_service', service)

  def __repr__(self) -> str:
    return f'<handle {self._name!r}: {self._label}>'

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Handle):
      return NotImplemented
    return (self._program, self._name) == (other._program, other._name)

  def __hash__(self) -> int:
    return hash((self._program, self._name))

  def __reduce__(self) -> tuple[type[Handle], tuple[str, str, str]]:
    return Handle, (self._program, self._name, self._label)

  def __copy__(self) -> Handle:
    return self

  def __deepcopy__(self, memo: object) -> Handle:
    return self

  def __getattr__(self, name: str) -> NoReturn:
    # Not every attribute that libraries ask for is meant for the service: copy, pickle
    # and printers probe for private names, rich for one that is no identifier.
    if name.startswith('_') or not name.isidentifier():
      raise AttributeError(f'{self!r} has no attribute {name!r}')
    raise self._not_launched(f'call {self._variable()}.{name}')

  def __setattr__(self, name: str, value: object) -> NoReturn:
    raise self._not_launched(f'set {name}')

  def __call__(self, *args: object, **kwargs: object) -> NoReturn:
    raise self._not_launched('call one of its methods')

  def __getitem__(self, key: object) -> NoReturn:
    raise self._not_launched('call one of its methods')

  def __iter__(self) -> Iterator[NoReturn]:
    raise self._not_launched('call one of its methods')

  def _variable(self) -> str:
    return self._name if self._name.isidentifier() else 'handle'

  def _not_launched(self, action: str) -> NotLaunched:
    return NotLaunched(
      f'{self._name!r} is not running yet: its handle can only be passed to other '
      f'nodes; {action} inside a node, or on running.client({self._variable()})'
    )


def name_of(handle: object) -> str:
  """The full name of the node that a handle stands for.

  Raises:
    TypeError: this is no handle.
  """
  return as_handle(handle)._name


def label_of(handle: object) -> str:
  """The readable name of the service that a handle stands for."""
  return as_handle(handle)._label


def service_of(handle: object) -> object:
  """The type of the service; typing.Any where unknown, or once the handle travelled."""
  return as_handle(handle)._service


def program_of(handle: object) -> str:
  """The identity of the program that a handle belongs to."""
  return as_handle(handle)._program


def as_handle(value: object) -> Handle:
  """The same value, known to be a handle.

  Raises:
    TypeError: it is none.
  """
  if not isinstance(value, Handle):
    raise TypeError(
      f'expected a handle that Program.add returned, got a {type(value).__name__}'
    )
  return value


def handles_in(value: object) -> Iterator[Handle]:
  """The handles in a value: itself, or nested in lists, tuples and dict values."""
  if isinstance(value, Handle):
    yield value
  elif isinstance(value, tuple) or type(value) is list:
    for item in value:
      yield from handles_in(item)
  elif type(value) is dict:
    for item in value.values():
      yield from handles_in(item)


def replace_handles(value: Any, resolve: Callable[[Handle], object]) -> Any:
  """The value with its handles resolved; what holds none stays the same object."""
  if isinstance(value, Handle):
    return resolve(value)
  if next(handles_in(value), None) is None:
    return value
  if isinstance(value, dict):
    return {key: replace_handles(item, resolve) for key, item in value.items()}
  items = [replace_handles(item, resolve) for item in value]
  if isinstance(value, list):
    return items
  make = getattr(type(value), '_make', tuple)
  return make(items)
