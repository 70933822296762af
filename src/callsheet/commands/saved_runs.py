"""What a run's folder says of how it was begun: agent, config, environment."""

from __future__ import annotations

from typing import Any

from callsheet.agents import registry
from callsheet.errors import UsageError


def agent_config(saved: dict[str, Any], folder: str) -> Any:
  """The agent's config; JSON knows lists, configs have tuples.

  Raises:
    UsageError: another version of Callsheet has written it, with other fields.
  """
  kind, fields = registry.find(saved['agent']).config, saved['agent_config']
  try:
    return kind(
      **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    )
  except TypeError as error:
    raise UsageError(
      f'{folder} was written by another version of {kind.__name__} ({error}); take the '
      'version in its config.json'
    ) from None


def about(saved: dict[str, Any]) -> dict[str, Any]:
  """What has to be known of a policy to play it: its agent and environment."""
  return {
    'agent': saved['agent'],
    'env': saved['flags']['env'],
    'env_options': saved['flags'].get('env_options'),
  }
