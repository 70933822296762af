"""What a constructor takes and makes, read from its signature and its annotations."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

Maker = Callable[..., object]

NOTHING = inspect.Parameter.empty
_PLAIN = (object.__init__, object.__new__)


def signature(make: Maker) -> inspect.Signature | None:
  """The signature of a constructor; None for the few built-in ones that show none."""
  try:
    return inspect.signature(typing.get_origin(make) or make)
  except (TypeError, ValueError):
    return None


def hints(make: Maker) -> dict[str, object]:
  """The annotations of a constructor's parameters and result, as types.

  One that can't be resolved (a name imported for type checkers alone) stays a string.
  """
  function: Any = make
  while isinstance(function, functools.partial):
    function = function.func
  function = typing.get_origin(function) or function
  if isinstance(function, type):
    makers = (getattr(function, name) for name in ('__init__', '__new__'))
    function = next((own for own in makers if own not in _PLAIN), function)
  elif not inspect.isroutine(function):
    function = type(function).__call__
  return resolved(function)


def resolved(holder: Any) -> dict[str, object]:
  """The annotations of a function or class, each as a type where that is possible."""
  try:
    return typing.get_type_hints(holder)
  except Exception:
    return {
      name: _resolve(annotation, getattr(inspect.unwrap(holder), '__globals__', {}))
      for name, annotation in written(holder).items()
    }


def written(holder: Any) -> dict[str, object]:
  """The annotations of a function or class itself, strings left as they are."""
  try:
    return inspect.get_annotations(holder)
  except (NameError, TypeError):  # evaluated on demand since Python 3.14; or a built-in
    return {}


def _resolve(annotation: object, names: dict[str, object]) -> object:
  def carrier() -> None: ...

  carrier.__annotations__ = {'it': annotation}
  try:
    return typing.get_type_hints(carrier, names)['it']
  except TypeError:  # typing knows no InitVar['...'] before Python 3.11
    return eval(annotation, names) if isinstance(annotation, str) else annotation
  except Exception:
    return annotation


def made_by(make: Maker) -> object:
  """The type of service that a constructor makes; typing.Any where it doesn't say."""
  function: Any = make
  while isinstance(function, functools.partial):
    function = function.func
  if isinstance(typing.get_origin(function) or function, type):
    return function
  made = hints(make).get('return', Any)
  owner = getattr(function, '__self__', None)
  if getattr(made, '__name__', '') == 'Self' or isinstance(made, TypeVar):
    return owner if isinstance(owner, type) else Any
  return Any if isinstance(made, str) else made


def label(kind: object, make: object = None) -> str:
  """A type as one would write it; for an unknown one, the function that makes it."""
  if kind is Any and make is not None:
    return f'{name_of_maker(make)}()'
  if kind is None or kind is type(None):
    return 'None'
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return ' | '.join(label(arm) for arm in arguments)
  if origin is not None and arguments and isinstance(origin, type):
    return f'{label(origin)}[{", ".join(label(item) for item in arguments)}]'
  if isinstance(kind, type):
    return kind.__name__
  if kind is ...:
    return '...'
  return str(kind).replace('typing.', '')


def name_of_maker(make: object) -> str:
  """What a constructor is called."""
  while isinstance(make, functools.partial):
    make = make.func
  return getattr(make, '__name__', None) or label(make)


def call(signature: inspect.Signature, *shown: str) -> str:
  """The signature as arguments of a call: 'agent, replay, seed=0'.

  Args:
    signature: of the constructor.
    *shown: arguments that come before these.
  """
  parts = list(shown)
  for parameter in signature.parameters.values():
    name, default = parameter.name, parameter.default
    if parameter.kind is parameter.VAR_POSITIONAL:
      parts.append(f'*{name}')
    elif parameter.kind is parameter.VAR_KEYWORD:
      parts.append(f'**{name}')
    elif default is not NOTHING and parameter.kind is not parameter.POSITIONAL_ONLY:
      parts.append(f'{name}={_short(default)}')
    elif parameter.kind is parameter.KEYWORD_ONLY:
      parts.append(f'{name}=...')
    else:
      parts.append(name)
  return ', '.join(parts)


def _short(default: object) -> str:
  text = getattr(default, '__name__', None) or repr(default)
  return text if len(text) <= 30 else '...'
