"""Command lines by absl flags, with one flag for every field of an agent's config."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from absl import flags

from callsheet.errors import UsageError

T = TypeVar('T')


def new_flags() -> flags.FlagValues:
  """An empty set of flags, with `--help` alone."""
  values = flags.FlagValues()  # type: ignore[no-untyped-call]
  flags.DEFINE_bool('help', False, 'Show the flags.', flag_values=values)
  return values


def parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  """Parses a command line into `values`.

  Returns:
    What is left: the arguments that are no flags.

  Raises:
    UsageError: an unknown flag, or a value that doesn't fit.
  """
  try:
    return list(values(['callsheet', *argv])[1:])
  except flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, list(values), n=1)
    hint = f'did you mean --{near[0]}?' if near else 'see --help'
    raise UsageError(f'no flag --{error.flagname}; {hint}') from None
  except flags.Error as error:
    raise UsageError(' '.join(str(error).split())) from None


def one_argument(arguments: Sequence[str], what: str, usage: str) -> str:
  """The single argument that is no flag."""
  if len(arguments) != 1:
    came = 'nothing' if not arguments else ' '.join(arguments)
    raise UsageError(f'expected one {what}, got {came}; right is: {usage}')
  return arguments[0]


def define_config(values: flags.FlagValues, config: type[Any]) -> None:
  """Defines one flag for each field that a command line can give.

  Args:
    values: where to define them.
    config: a dataclass with a default for every such field.
  """
  types_of = typing.get_type_hints(config)
  for field in dataclasses.fields(config):
    kind, _ = _kind(types_of[field.name])
    if kind is None or field.default is dataclasses.MISSING:
      continue
    what = f"{config.__name__}'s own"
    if kind is bool:
      flags.DEFINE_bool(field.name, field.default, what, flag_values=values)
    else:
      flags.DEFINE_string(field.name, _shown(field.default), what, flag_values=values)


def read_config(values: flags.FlagValues, config: type[T]) -> T:
  """The config that the command line describes.

  Raises:
    UsageError: a value that is not of its field's type, or that the config refuses.
  """
  types_of = typing.get_type_hints(config)
  given = {}
  for field in dataclasses.fields(config):  # type: ignore[arg-type]
    kind, optional = _kind(types_of[field.name])
    if kind is not None and values[field.name].present:
      given[field.name] = _read(field.name, values[field.name].value, kind, optional)
  return config(**given)


def _kind(annotation: Any) -> tuple[Any, bool]:
  """bool, int, float, str or tuple (of int), and whether None is allowed."""
  optional = False
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    arms = [a for a in typing.get_args(annotation) if a is not type(None)]
    optional = len(arms) < len(typing.get_args(annotation))
    annotation = arms[0] if len(arms) == 1 else None
  if typing.get_origin(annotation) is tuple:
    annotation = tuple
  known = annotation in (bool, int, float, str, tuple)
  return (annotation if known else None), optional


def _shown(value: object) -> str:
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _read(name: str, value: Any, kind: Any, optional: bool) -> Any:
  if kind is bool:
    return value
  if optional and value.lower() == 'none':
    return None
  try:
    if kind is tuple:
      return tuple(int(part) for part in value.split(',') if part)
    return kind(value)
  except ValueError:
    wanted = 'whole numbers with commas' if kind is tuple else kind.__name__
    or_none = ' or none' if optional else ''
    raise UsageError(f'--{name} takes {wanted}{or_none}, got {value!r}') from None
