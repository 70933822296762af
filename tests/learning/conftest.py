"""Where the folders of learning runs are kept, if they are."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
  parser.addoption(
    '--runs', help='keeps the run folders here, for the table; none by default'
  )


@pytest.fixture
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
  """The folder that the runs of a test go to."""
  kept = request.config.getoption('--runs', default=None)
  return tmp_path if kept is None else Path(kept).absolute()
