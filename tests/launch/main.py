"""Launches a program of `services` in a process of its own: main.py LOGS BACKEND ..."""

from __future__ import annotations

import sys
import threading

from callsheet.launch import Backend, Processes, Slurm, Ssh, Threads, launch
from callsheet.launch.launchpad import Launchpad
from tests.launch import services
from tests.launch.hosts import Hosts


def main() -> None:
  logs, backend, name, *args = sys.argv[1:]
  try:
    program = getattr(services, name)(*args)
    launch(program, chosen(backend, logs), grace=60)
  except KeyboardInterrupt:
    sys.exit(130)


def chosen(backend: str, logs: str) -> Backend:
  """A backend's name ('ssh' for this host), or 'ADDRESS,HOST,HOST,...'.

  Processes are spawned; those of 'forked' are forked if they may be, and those of
  'threaded' from a launcher that has a thread. With '-pdb' exceptions open a debugger.
  """
  if backend == 'threads':
    return Threads(deadline=1.0)
  if backend == 'threads-pdb':
    return Threads(deadline=1.0, pdb=True)
  if backend.endswith('-pdb'):
    fork = backend == 'forked-pdb'
    return Processes(log_directory=logs, deadline=1.0, fork=fork, pdb=True)
  if backend == 'threaded':
    threading.Thread(target=threading.Event().wait, daemon=True).start()
  if backend in ('processes', 'forked', 'threaded'):
    return Processes(log_directory=logs, fork=backend != 'processes')
  if backend == 'slurm':
    return Slurm(log_directory=logs)
  if backend == 'ssh':
    return here(logs)
  if backend == 'launchpad':
    return Launchpad(log_directory=logs)
  address, *names = backend.split(',')
  return Ssh(
    tuple(names), Hosts.command, address=address, log_directory=logs, silence=6.0
  )


def here(logs: str) -> Ssh:
  """The ssh backend, where ssh is a shell of this host."""
  return Ssh(('127.0.0.1',), ('sh', '-c', 'exec {command}'), log_directory=logs)


if __name__ == '__main__':
  main()
