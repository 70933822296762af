"""Time steps appended to tables that make the n-step transitions of them: rows."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from contextlib import ExitStack
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from replay_rows import ratio, timed

from callsheet.agents.base import EnvironmentSpec, NStep, Table
from callsheet.agents.step_tables import step_table
from callsheet.nodes.native_replay import NativeReplay

LENGTH, ENVIRONMENTS, EPISODE = 16, 16, 200
# Blocks in one measurement.
TIMES = {
  ('native', 'vectors'): 100,
  ('native', 'frames'): 30,
  ('reverb', 'vectors'): 4,
  ('reverb', 'frames'): 1,
}
ACTION = specs.DiscreteArray(6, np.int32)
TABLES = {
  'vectors': step_table(
    EnvironmentSpec(specs.Array((4,), np.float32), ACTION),
    NStep('vectors', 3, 0.99),
    10_000,
  ),
  'frames': step_table(
    EnvironmentSpec(specs.Array((84, 84, 4), np.uint8), ACTION),
    NStep('frames', 3, 0.99, num_stacked=4),
    10_000,
  ),
}


def blocks(kind: str) -> list[dict[str, Any]]:
  """Blocks `[T, B, ...]` that follow each other, and the first one the last."""
  generator = np.random.default_rng(0)
  count = EPISODE // np.gcd(EPISODE, LENGTH)
  steps = np.arange(count * LENGTH) % EPISODE
  step_type = np.full(steps.shape, int(dm_env.StepType.MID), np.int32)
  step_type[steps == 0] = int(dm_env.StepType.FIRST)
  step_type[steps == EPISODE - 1] = int(dm_env.StepType.LAST)
  shape = (LENGTH, ENVIRONMENTS)
  frame = (84, 84, 1) if kind == 'frames' else (4,)
  dtype = np.uint8 if kind == 'frames' else np.float32
  return [
    {
      'step_type': np.repeat(types[:, None], ENVIRONMENTS, 1),
      'reward': generator.random(shape, np.float32),
      'discount': np.ones(shape, np.float32),
      'observation': generator.integers(0, 256, (*shape, *frame)).astype(dtype),
      'action': generator.integers(0, 6, shape).astype(np.int32),
    }
    for types in np.split(step_type, count)
  ]


def rows(rounds: int) -> dict[str, Any]:
  """Time steps a second, and MB/s of what was given; engines interleaved, medians."""
  spent: dict[tuple[str, str], list[float]] = {}
  found: dict[str, Any] = {}
  with ExitStack() as stack:
    replays = _replays(stack, list(TABLES.values()))
    for kind in TABLES:
      given = blocks(kind)
      for round in range(rounds + 1):  # the first one warms up
        for engine, replay in replays.items():
          took = _append(replay, kind, given, TIMES[engine, kind])
          if round:
            spent.setdefault((kind, engine), []).append(took)
  for kind in TABLES:
    size = sum(column.nbytes for column in blocks(kind)[0].values())
    row = {
      engine: _rates(spent[kind, engine], size, f'our {engine} engine')
      for engine in replays
    }
    if 'reverb' in replays:
      row['ratio'] = ratio(spent[kind, 'reverb'], spent[kind, 'native'])
    found[f'append_{kind}_colocated'] = row
  return found


def _append(replay: Any, kind: str, given: list[dict[str, Any]], times: int) -> float:
  """Seconds a block."""
  replay.append(kind, 'actor', given[-1], fresh=True)
  following = itertools.cycle(given)
  return timed(lambda: replay.append(kind, 'actor', next(following)), times)


def _replays(stack: ExitStack, tables: list[Table]) -> dict[str, Any]:
  replays: dict[str, Any] = {'native': NativeReplay(tables)}
  if importlib.util.find_spec('reverb') is not None:
    from callsheet.nodes.reverb_replay import ReverbReplay

    replays['reverb'] = ReverbReplay(tables)
  for replay in replays.values():
    stack.callback(replay.close)
  return replays


def _rates(took: list[float], size: int, way: str) -> dict[str, Any]:
  seconds = statistics.median(took)
  return {
    'items_per_s': round(LENGTH * ENVIRONMENTS / seconds),
    'MB_per_s': round(size / seconds / 1e6, 1),
    'by': way,
  }
