"""Command lines by absl flags, with one flag for every field of an agent's config."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from absl import flags

from callsheet.errors import UsageError

T = TypeVar('T')


def new_flags() -> flags.FlagValues:
  """An empty set of flags, with `--help` alone."""
  values = flags.FlagValues()  # type: ignore[no-untyped-call]
  flags.DEFINE_bool('help', False, 'Show this.', short_name='h', flag_values=values)
  return values


def parse(
  values: flags.FlagValues, argv: Sequence[str], known_only: bool = False
) -> list[str]:
  """Parses a command line into `values`.

  Args:
    values: the flags that there are.
    argv: without the name of the program.
    known_only: flags that there are not are left, not refused.

  Returns:
    What is left: the arguments that are no flags.

  Raises:
    UsageError: an unknown flag, or a value that doesn't fit.
  """
  try:
    return list(values(['callsheet', *argv], known_only=known_only)[1:])
  except flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, list(values), n=1)
    hint = f'did you mean --{near[0]}?' if near else 'see --help'
    raise UsageError(f'no flag --{error.flagname}; {hint}') from None
  except flags.Error as error:
    raise UsageError(_refusal(values, ' '.join(str(error).split()))) from None


def _refusal(values: flags.FlagValues, message: str) -> str:
  """absl's message on a value; where it speaks of Python, what would be right."""
  found = re.match(r'flag --(?P<name>\w+)=(?P<value>.*?): ', message)
  if found is None:
    return message
  flag = values[found['name']]
  wanted = 'true or false' if flag.boolean else flag.parser.syntactic_help
  return f'--{flag.name} takes {wanted}, got {found["value"]!r}'


def one_argument(arguments: Sequence[str], what: str, usage: str) -> str:
  """The single argument that is no flag."""
  if len(arguments) != 1:
    came = 'nothing' if not arguments else ' '.join(arguments)
    raise UsageError(f'expected one {what}, got {came}; right is: {usage}')
  return arguments[0]


def config_names(config: type[Any], skip: Collection[str] = ()) -> list[str]:
  """The fields of a dataclass that a command line can give: those with a default."""
  types_of = typing.get_type_hints(config)
  return [
    field.name
    for field in dataclasses.fields(config)
    if _kind(types_of[field.name])[0]
    and field.default is not dataclasses.MISSING
    and field.name not in skip
  ]


def define_config(
  values: flags.FlagValues,
  config: type[Any],
  prefix: str = '',
  skip: Collection[str] = (),
) -> None:
  """Defines one flag for each field that a command line can give.

  Args:
    values: where to define them.
    config: a dataclass; what its docstring says of a field is shown by `--help`.
    prefix: comes before each field's name.
    skip: fields to leave out.
  """
  types_of, documented = typing.get_type_hints(config), _documented(config)
  defaults: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(config)
  }
  for name in config_names(config, skip):
    what, default = documented.get(name, ''), defaults[name]
    if _kind(types_of[name])[0] is bool:
      flags.DEFINE_bool(prefix + name, default, what, flag_values=values)
    else:
      flags.DEFINE_string(prefix + name, _shown(default), what, flag_values=values)


def read_config(
  values: flags.FlagValues,
  config: type[T],
  prefix: str = '',
  skip: Collection[str] = (),
) -> T:
  """The config that the command line describes.

  Raises:
    UsageError: a value that is not of its field's type, or that the config refuses.
  """
  types_of = typing.get_type_hints(config)
  given = {
    name: _read(prefix + name, values[prefix + name].value, *_kind(types_of[name]))
    for name in config_names(config, skip)
    if values[prefix + name].present
  }
  return config(**given)


def _kind(annotation: Any) -> tuple[Any, bool]:
  """bool, int, float, str, 'ints' or 'texts', and whether None is allowed."""
  optional = False
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    arms = [a for a in typing.get_args(annotation) if a is not type(None)]
    optional = len(arms) < len(typing.get_args(annotation))
    annotation = arms[0] if len(arms) == 1 else None
  if typing.get_origin(annotation) is tuple:
    annotation = {int: 'ints', str: 'texts'}.get(typing.get_args(annotation)[0])
  known = annotation in (bool, int, float, str, 'ints', 'texts')
  return (annotation if known else None), optional


def _documented(config: type[Any]) -> dict[str, str]:
  """What the class's docstring says of each field, under `Attributes:`, or else that
  of a class which it inherits from."""
  documented: dict[str, str] = {}
  for kind in reversed(config.__mro__):
    _, _, listed = inspect.cleandoc(kind.__doc__ or '').partition('Attributes:\n')
    listed = listed.partition('\n\n')[0]
    entries = re.split(r'^  (\w+): ', listed, flags=re.MULTILINE)[1:]
    texts = (' '.join(text.split()) for text in entries[1::2])
    documented.update(zip(entries[::2], texts, strict=True))
  return documented


def _shown(value: object) -> str:
  if value is None:
    return 'none'
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


_WANTED = {
  int: 'an integer',
  float: 'a number',
  str: 'a text',
  'ints': 'integers with commas between them',
}


def _read(name: str, value: Any, kind: Any, optional: bool) -> Any:
  if kind is bool:
    return value
  if optional and value.lower() == 'none':
    return None
  try:
    if kind in ('ints', 'texts'):
      of = int if kind == 'ints' else str
      return tuple(of(part) for part in value.split(',') if part)
    return kind(value)
  except ValueError:
    wanted = _WANTED[kind]
    or_none = ' or none' if optional else ''
    raise UsageError(f'--{name} takes {wanted}{or_none}, got {value!r}') from None
