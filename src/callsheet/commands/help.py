"""The page that `--help` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from absl import flags

_WIDTH, _INDENT = 88, 32


def page(
  values: flags.FlagValues, usage: str, sections: Mapping[str, Sequence[str]]
) -> str:
  """Every flag with its default.

  Args:
    values: the flags.
    usage: a call, for the page's first line.
    sections: the names of flags under each heading, in the order of the page.
  """
  lines = [f'usage: {usage}']
  for heading, names in sections.items():
    lines += ['', f'{heading}:']
    for name in names:
      lines += _described(values[name])
  return '\n'.join(lines)


def _described(flag: flags.Flag[object]) -> list[str]:
  default = '' if flag.default is None else f'={flag.default}'
  head = f'  --{flag.name}{default.lower() if flag.boolean else default}'
  text = textwrap.wrap(flag.help or '', _WIDTH - _INDENT) or ['']
  if len(head) >= _INDENT:
    text = ['', *text]
  first, *others = text
  return [f'{head:<{_INDENT}}{first}'.rstrip(), *(' ' * _INDENT + o for o in others)]
