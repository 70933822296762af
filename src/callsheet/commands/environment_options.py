"""`--env_options=reward_clipping=false,num_threads=2` on a command line."""

from __future__ import annotations

import json
from typing import Any

from callsheet.errors import UsageError


def read(text: str | None) -> dict[str, Any]:
  """The options of an environment; a value is JSON's, or else a text.

  Raises:
    UsageError: what comes between two commas is no `name=value`.
  """
  options: dict[str, Any] = {}
  for part in (text or '').split(','):
    if not part:
      continue
    name, equals, value = part.partition('=')
    if not (equals and name.isidentifier()):
      raise UsageError(
        f'--env_options takes name=value with commas between them, got {part!r}; right '
        'is: --env_options=reward_clipping=false'
      )
    try:
      options[name] = json.loads(value)
    except ValueError:
      options[name] = value
  return options
