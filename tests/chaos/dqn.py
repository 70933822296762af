"""`callsheet` itself, with a fault in its runs."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from callsheet.commands import main as command


def main() -> None:
  """Runs the command line behind the fault and the ledger's folder."""
  described, folder, *argv = sys.argv[1:]
  command.stay_single(os.environ)
  from callsheet.commands import run
  from tests.chaos.faults import Fault
  from tests.chaos.troubled import troubled

  fault, start = Fault(**json.loads(described)), run.start

  def start_troubled(plan: Any, *args: Any, **kwargs: Any) -> Any:
    return start(troubled(plan, fault, folder), *args, **kwargs)

  run.start = start_troubled  # type: ignore[assignment]
  command.main(argv)


if __name__ == '__main__':
  main()
