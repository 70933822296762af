"""`callsheet export`."""

from __future__ import annotations


def export(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  raise NotImplementedError
