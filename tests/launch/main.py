"""Launches a program of `services` in a process of its own: main.py LOGS BACKEND ..."""

from __future__ import annotations

import sys

from callsheet.launch import Processes, Threads, launch
from tests.launch import services


def main() -> None:
  logs, backend, program, *args = sys.argv[1:]
  chosen = Processes(log_directory=logs) if backend == 'processes' else Threads(1.0)
  try:
    launch(getattr(services, program)(*args), chosen)
  except KeyboardInterrupt:
    sys.exit(130)


if __name__ == '__main__':
  main()
