"""Whether a service fits an annotation: a class by descent, a Protocol by methods."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from typing import Any, Literal, TypeVar

from callsheet.programs.handle import Handle, handles_in, service_of
from callsheet.programs.signatures import (
  NOTHING,
  label,
  resolved,
  signature,
  written,
)


@dataclass(frozen=True)
class Misfit:
  """A handle in the wrong place: where, what belongs there, and why it doesn't fit."""

  handle: Handle
  expected: object
  reason: str


def misfit(value: object, expected: object) -> Misfit | None:
  """The first handle in an argument that doesn't fit its annotation.

  What holds no handle is not looked at: types of plain values are the type checker's.
  """
  if isinstance(value, Handle):
    reason = unfit(service_of(value), expected)
    return None if reason is None else Misfit(value, expected, reason)
  first = next(handles_in(value), None)
  if first is None:
    return None
  found = []
  for arm in _arms(expected):
    result = _misfit_inside(value, arm, first)
    if result is None:
      return None
    found.append(result)
  # The arm that went deepest is the one that was meant.
  return next(
    (each for each in found if each.expected not in _arms(expected)), found[0]
  )


def _misfit_inside(value: Any, expected: object, first: Handle) -> Misfit | None:
  if _open(expected):
    return None
  origin, arguments = typing.get_origin(expected) or expected, typing.get_args(expected)
  holder = f'it is inside a {type(value).__name__}'
  if not isinstance(origin, type):
    return Misfit(first, expected, holder) if _plain(expected) else None
  try:
    if not isinstance(value, origin):
      return Misfit(first, expected, holder)
  except TypeError:  # a Protocol that can't be tested at run time
    return None
  for item, annotation in _items(value, origin, arguments):
    result = misfit(item, annotation)
    if result is not None:
      return result
  return None


def _items(
  value: Any, origin: type, arguments: tuple[object, ...]
) -> Iterator[tuple[object, object]]:
  if isinstance(value, dict):
    annotation = arguments[1] if len(arguments) == 2 else Any
    yield from ((item, annotation) for item in value.values())
  elif hasattr(origin, '_fields'):
    known = resolved(origin)
    names: tuple[str, ...] = origin._fields
    yield from (
      (item, known.get(name)) for name, item in zip(names, value, strict=False)
    )
  elif origin is tuple and arguments and arguments[-1] is not ...:
    yield from zip(value, arguments, strict=False)
  else:
    annotation = arguments[0] if arguments else Any
    yield from ((item, annotation) for item in value)


def unfit(service: object, expected: object) -> str | None:
  """Why a service of this type doesn't fit the annotation; None if it does."""
  if _open(service) or _open(expected):
    return None
  given = _arms(service)
  if len(given) > 1:
    found = (unfit(each, expected) for each in given)
    return next((reason for reason in found if reason is not None), None)
  reasons = [_unfit_one(given[0], arm) for arm in _arms(expected)]
  return None if None in reasons else next((r for r in reasons if r), '')


def _unfit_one(service: object, expected: object) -> str | None:
  if _open(expected):
    return None
  service = typing.get_origin(service) or service
  expected = typing.get_origin(expected) or expected
  if not isinstance(expected, type):
    return '' if _plain(expected) else None
  if not isinstance(service, type):
    return None
  if expected in service.__mro__:
    return None
  if getattr(expected, '_is_protocol', False):
    problems = (_lacks(service, expected, name) for name in _members(expected))
    return next((problem for problem in problems if problem is not None), None)
  try:
    return None if issubclass(service, expected) else ''
  except TypeError:
    return ''


def _arms(kind: object) -> tuple[object, ...]:
  """The alternatives of a union, unwrapped; a plain type is its only one."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    return tuple(arm for each in typing.get_args(kind) for arm in _arms(each))
  if typing.get_origin(kind) is typing.Annotated:
    return _arms(typing.get_args(kind)[0])
  if isinstance(kind, InitVar):
    return _arms(kind.type)
  for inner in ('__supertype__', '__value__'):  # of a NewType, of a type statement
    if hasattr(kind, inner):
      return _arms(getattr(kind, inner))
  return (kind,)


def _open(kind: object) -> bool:
  """Whether the annotation says nothing that could be compared."""
  if kind in (Any, object, NOTHING):
    return True
  return isinstance(kind, str | typing.ForwardRef | TypeVar)


def _plain(kind: object) -> bool:
  """Whether only a value fits, never a service; what isn't known gets the doubt."""
  return kind is None or kind is Literal or typing.get_origin(kind) is Literal


def _members(protocol: type) -> list[str]:
  found: dict[str, None] = {}
  for base in reversed(protocol.__mro__):
    if base is not object and base.__module__ not in ('typing', 'typing_extensions'):
      names = {**written(base), **vars(base)}
      found.update(dict.fromkeys(name for name in names if not name.startswith('_')))
  return list(found)


def _lacks(service: type, protocol: type, name: str) -> str | None:
  wanted = inspect.getattr_static(protocol, name, None)
  given = inspect.getattr_static(service, name, None)
  if given is None:
    annotated = any(name in written(b) for b in service.__mro__)
    what = 'method' if inspect.isfunction(wanted) else 'attribute'
    return None if annotated else f'{label(service)} has no {what} {name!r}'
  ours, theirs = _parameters(protocol, name), _parameters(service, name)
  if ours is None or theirs is None or _accepts(theirs, ours):
    return None
  return (
    f'{label(service)}.{name} takes ({_text(theirs)}), '
    f'{label(protocol)}.{name} ({_text(ours)})'
  )


def _parameters(owner: type, name: str) -> list[inspect.Parameter] | None:
  """A method's parameters without self; None for what isn't a plain method."""
  method = inspect.getattr_static(owner, name, None)
  bound = isinstance(method, staticmethod | classmethod)
  if not bound and not inspect.isfunction(method):
    return None
  found = signature(getattr(owner, name))
  if found is None:
    return None
  parameters = list(found.parameters.values())
  named = parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
  return parameters if bound or not named else parameters[1:]


def _text(parameters: list[inspect.Parameter]) -> str:
  bare = (each.replace(annotation=NOTHING) for each in parameters)
  return str(inspect.Signature(list(bare)))[1:-1]


def _accepts(given: list[inspect.Parameter], wanted: list[inspect.Parameter]) -> bool:
  """Whether every call that `wanted` allows is one that `given` allows."""
  kind = inspect.Parameter
  positional = (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)
  stars = {each.kind for each in given} & {kind.VAR_POSITIONAL, kind.VAR_KEYWORD}
  in_place = [each for each in given if each.kind in positional]
  by_name = {each.name: each for each in given if each.kind is not kind.POSITIONAL_ONLY}
  used: set[str] = set()
  for index, each in enumerate(w for w in wanted if w.kind in positional):
    if index < len(in_place):
      match = in_place[index]
      misnamed = each.kind is kind.POSITIONAL_OR_KEYWORD and (
        match.kind is kind.POSITIONAL_ONLY or match.name != each.name
      )
      if misnamed or (each.default is not NOTHING and match.default is NOTHING):
        return False
      used.add(match.name)
    elif kind.VAR_POSITIONAL not in stars:
      return False
  for each in wanted:
    if each.kind is kind.KEYWORD_ONLY:
      found = by_name.get(each.name)
      if found is None and kind.VAR_KEYWORD not in stars:
        return False
      if found and each.default is not NOTHING and found.default is NOTHING:
        return False
      used.add(each.name)
    elif (
      each.kind in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD) and each.kind not in stars
    ):
      return False
  return all(
    each.default is not NOTHING or each.name in used or each.kind in stars
    for each in given
  )
