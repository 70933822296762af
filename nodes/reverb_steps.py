"""Whole items out of time steps, for an engine that stores nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from callsheet.agents.base import NStep, Steps
from callsheet.nodes.step_items import fill, new_columns
from callsheet.nodes.step_streams import Window

Array = npt.NDArray[Any]


def whole_items(steps: Steps, window: Window) -> dict[str, Array]:
  """The N items that a window's newest block completes, columns `[N, ...]`."""
  length, environments = window.position.shape
  rows: Mapping[str, Array] = {
    name: column.reshape(length * environments, *column.shape[2:])
    for name, column in window.columns.items()
  }
  rows = {
    **rows,
    'previous': np.maximum(np.arange(length * environments) - environments, 0),
    'position': window.position.ravel(),
  }
  items = {
    'start': window.start * environments + window.environment,
    'stop': window.stop * environments + window.environment,
  }
  if isinstance(steps.writes, NStep):
    items |= {'reward': window.reward, 'discount': window.discount}
    for name in ('action', *steps.extras):
      items[name] = window.columns[name][window.start + 1, window.environment]
  else:
    items['length'] = window.stop - window.start
  columns = new_columns(steps, len(window.start))
  fill(steps, rows, items, columns, slice(0, len(window.start)))
  return columns
