"""What `Program.add` refuses: misfitting arguments, wrong edges, what can't travel."""

from __future__ import annotations

import difflib
import inspect
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from callsheet.errors import ArgumentError, EdgeError, GraphError, NotPicklable
from callsheet.programs.fits import Misfit, misfit, unfit
from callsheet.programs.handle import (
  Handle,
  handles_in,
  label_of,
  name_of,
  program_of,
  service_of,
)
from callsheet.programs.signatures import (
  NOTHING,
  Maker,
  call,
  hints,
  label,
  name_of_maker,
  signature,
)


@dataclass(frozen=True)
class Site:
  """One call of `Program.add`: the node's full name, as written, and the rest."""

  full: str
  name: str
  make: Maker
  args: tuple[object, ...]
  kwargs: Mapping[str, object]

  @property
  def maker(self) -> str:
    return name_of_maker(self.make)

  def right(self) -> str:
    """The call that would be right."""
    found = signature(self.make)
    shown = (repr(self.name), self.maker)
    return (
      f'program.add({call(found, *shown) if found else ", ".join((*shown, "..."))})'
    )


@dataclass(frozen=True)
class _Argument:
  name: str
  value: object
  annotation: object


def arguments(site: Site) -> None:
  """Raises ArgumentError where the constructor can't be called with these arguments."""
  make: Any = site.make
  if isinstance(make, Handle):
    raise ArgumentError(
      f'node {site.full!r}: {name_of(make)!r} is a node already; its handle is '
      f'passed after a constructor: program.add({site.name!r}, Consumer, handle)'
    )
  if not callable(make):
    kind = type(make).__name__
    raise ArgumentError(
      f'node {site.full!r}: a {kind} is no constructor; pass the class and its '
      f'arguments, and the node builds it: program.add({site.name!r}, {kind}, ...)'
    )
  if inspect.isabstract(make) or getattr(make, '_is_protocol', False):
    raise ArgumentError(
      f'node {site.full!r}: {site.maker} is abstract; pass a class that can be built'
    )
  found = signature(make)
  if found is None:
    return
  problems = list(_problems(site, found))
  if problems:
    raise ArgumentError(
      f'node {site.full!r}: {site.maker} {", ".join(problems)}. '
      f'The call that would be right: {site.right()}'
    )


def _problems(site: Site, found: inspect.Signature) -> Iterator[str]:
  parameters = found.parameters.values()
  kind = inspect.Parameter
  places = [
    p.name
    for p in parameters
    if p.kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)
  ]
  names = [
    p.name
    for p in parameters
    if p.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)
  ]
  kinds = {p.kind for p in parameters}
  missing = [
    p.name
    for p in parameters
    if p.default is NOTHING and p.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)
  ]
  filled = places[: len(site.args)]
  missing = [name for name in missing if name not in filled]
  missing = [name for name in missing if not (name in names and name in site.kwargs)]
  for name in site.kwargs:
    if name in names and name in filled:
      yield f'is given {name!r} twice'
    elif name not in names and kind.VAR_KEYWORD not in kinds:
      near = difflib.get_close_matches(name, names, n=1)
      yield f'has no parameter {name!r}' + (
        f' (did you mean {near[0]!r}?)' if near else ''
      )
  if missing:
    yield f'misses {", ".join(map(repr, missing))}'
  extra = len(site.args) - len(places)
  if extra > 0 and kind.VAR_POSITIONAL not in kinds:
    yield f'takes {len(places)} positional arguments and is given {len(site.args)}'


def _given(site: Site) -> Iterator[_Argument]:
  """Each argument with the name and annotation of its parameter."""
  found, known = signature(site.make), hints(site.make)
  if found is None:
    for index, value in enumerate(site.args):
      yield _Argument(f'argument {index + 1}', value, Any)
    for name, value in site.kwargs.items():
      yield _Argument(name, value, Any)
    return
  for name, value in found.bind(*site.args, **site.kwargs).arguments.items():
    parameter = found.parameters[name]
    annotation = known.get(name, Any)
    if parameter.kind is parameter.VAR_POSITIONAL:
      for index, item in enumerate(value):
        yield _Argument(f'{name}[{index}]', item, annotation)
    elif parameter.kind is parameter.VAR_KEYWORD:
      for key, item in value.items():
        yield _Argument(key, item, annotation)
    else:
      yield _Argument(name, value, annotation)


def edges(site: Site, program: str, nodes: tuple[Handle, ...]) -> None:
  """Compares the service of each handle with the annotation of its parameter.

  Args:
    site: the call.
    program: the identity of the program that is being declared.
    nodes: its handles so far, for what to suggest.

  Raises:
    EdgeError: a handle of the wrong service.
    GraphError: a handle of another program.
  """
  for argument in _given(site):
    for handle in handles_in(argument.value):
      if program_of(handle) != program:
        raise GraphError(
          f'node {site.full!r}: parameter {argument.name!r} is given '
          f'{name_of(handle)!r} of another program, and only nodes of one program can '
          'call each other: add it to this one too, and pass the handle that it gives'
        )
    wrong = misfit(argument.value, argument.annotation)
    if wrong is not None:
      raise EdgeError(_edge(site, argument, wrong, nodes))


def _edge(
  site: Site, argument: _Argument, wrong: Misfit, nodes: tuple[Handle, ...]
) -> str:
  reason = f' ({wrong.reason})' if wrong.reason else ''
  others = [
    repr(name_of(node))
    for node in nodes
    if node != wrong.handle and unfit(service_of(node), wrong.expected) is None
  ]
  if others:
    advice = f'{" or ".join(others[:3])} would fit'
  else:
    advice = 'no other node of this program would fit'
  return (
    f'node {site.full!r}: parameter {argument.name!r} of {site.maker} expects '
    f'{label(wrong.expected)}, but is given {name_of(wrong.handle)!r}, a '
    f'{label_of(wrong.handle)}{reason}; {advice}. '
    f'The call that would be right: {site.right()}'
  )


def fulfils(site: Site, service: object, forward: Handle) -> None:
  """Raises EdgeError where a node isn't what was said of it ahead."""
  reason = unfit(service, service_of(forward))
  if reason is not None:
    raise EdgeError(
      f'node {site.full!r} was forwarded as a {label_of(forward)}, but {site.maker} '
      f'makes a {label(service)}'
      + (f' ({reason})' if reason else '')
      + '; forward what is added: '
      f'program.forward({site.name!r}, {label(service)})'
    )


def travels(site: Site) -> None:
  """Pickles the constructor and each argument, as every backend but threads must.

  Raises:
    NotPicklable: one of them can't be.
    GraphError: a handle is hidden where nobody would replace it by a client.
  """
  for handle in _pickled(site, 'its constructor', site.make):
    raise GraphError(
      f'node {site.full!r}: {site.maker} holds the handle {name_of(handle)!r}; pass it '
      f'as an argument instead: program.add({site.name!r}, {site.maker}, handle)'
    )
  for argument in _given(site):
    found = set(handles_in(argument.value))
    for handle in _pickled(site, f'argument {argument.name!r}', argument.value):
      if handle not in found:
        raise GraphError(
          f'node {site.full!r}: argument {argument.name!r} hides the handle '
          f'{name_of(handle)!r} in a {type(argument.value).__name__}; handles are '
          'found in lists, tuples and dict values: pass it as an argument of its own'
        )


def _pickled(site: Site, what: str, value: object) -> list[Handle]:
  """The handles that were met while pickling a value."""
  import cloudpickle  # heavy, and needed by declaring programs alone

  met: list[Handle] = []

  class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def persistent_id(self, item: object) -> str | None:
      if not isinstance(item, Handle):
        return None
      met.append(item)
      return name_of(item)

  try:
    Pickler(io.BytesIO()).dump(value)
  except Exception as error:
    raise NotPicklable(
      f'node {site.full!r}: {what} of {site.maker} is a {type(value).__name__} that '
      f"can't travel to its node ({error}); pass what it is made from, or a function "
      'that makes it inside the node'
    ) from error
  return met
