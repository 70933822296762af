"""The engines of the replay, each of which passes the same tests (`test_replay_*`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from callsheet.agents.base import Table
from callsheet.nodes.native_replay import NativeReplay

REVERB = importlib.util.find_spec('reverb') is not None
NATIVE = ['native', 'native-mapped']
ENGINES = [*NATIVE, 'reverb'] if REVERB else NATIVE
collect_ignore = [] if REVERB else ['test_reverb_law.py', 'test_reverb_replay.py']

Engine = Callable[..., Any]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
  """Makes a replay from tables; it is closed behind the test."""
  made: list[Any] = []

  def make(tables: Sequence[Table], **options: Any) -> Any:
    if request.param == 'reverb':
      from callsheet.nodes.reverb_replay import ReverbReplay

      made.append(ReverbReplay(tables, **options))
    else:
      if request.param == 'native-mapped':
        options['columns_directory'] = str(
          tmp_path.with_name(f'{tmp_path.name}-mapped')
        )
      made.append(NativeReplay(tables, **options))
    return made[-1]

  yield make
  for replay in made:
    replay.close()
