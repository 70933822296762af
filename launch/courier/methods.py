"""What a service exports: its public callables, except run and close."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callsheet.calls import is_blocking
from callsheet.errors import NoSuchMethod
from callsheet.launch.courier.statistics import Record

_OWN = frozenset({'run', 'close'})


@dataclass(frozen=True)
class Method:
  """One callable of a service."""

  name: str
  function: Callable[..., Any]
  blocking: bool
  parameters: tuple[str, ...]
  record: Record = field(default_factory=Record, compare=False)


@dataclass(frozen=True)
class Described:
  """What a caller is told of a method; `index` stands for it in calls."""

  index: int
  blocking: bool
  parameters: tuple[str, ...]


def exported(service: object) -> tuple[Method, ...]:
  """The public methods; properties are not touched, classes not exported."""
  found = []
  for name in dir(service):
    if name.startswith('_') or name in _OWN:
      continue
    if isinstance(inspect.getattr_static(service, name, None), property):
      continue
    function = getattr(service, name, None)
    if callable(function) and not isinstance(function, type):
      found.append(Method(name, function, is_blocking(function), _parameters(function)))
  return tuple(found)


def reserved(control: Mapping[str, Callable[..., Any]]) -> tuple[Method, ...]:
  """What a server answers beside its service: no public name is like these."""
  return tuple(
    Method(f'_{name}', function, False, ()) for name, function in control.items()
  )


def described(methods: Sequence[Method]) -> dict[str, Described]:
  """What callers are told, by name."""
  return {
    method.name: Described(index, method.blocking, method.parameters)
    for index, method in enumerate(methods)
  }


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
  """The names of the positional parameters, for error messages."""
  try:
    parameters = inspect.signature(function).parameters.values()
  except (TypeError, ValueError):
    return ()
  positional = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
  )
  return tuple(p.name for p in parameters if p.kind in positional)


def no_such_method(peer: str, name: str, known: Iterable[str]) -> NoSuchMethod:
  """The error that lists what there is, the closest name first."""
  names = sorted(each for each in known if not each.startswith('_'))
  close = difflib.get_close_matches(name, names, n=1)
  hint = f'; did you mean {close[0]!r}?' if close else ''
  if name in _OWN:
    hint = '; run and close belong to the node itself'
  have = ', '.join(names) or 'none at all'
  return NoSuchMethod(f'{peer!r} has no method {name!r}{hint} (it has: {have})', peer)
