"""`callsheet run ...` and its like: one line for what can't be done."""

from __future__ import annotations

import contextlib
import difflib
import os
import select
import sys
from collections.abc import Callable, MutableMapping, Sequence

from callsheet.commands.exit_codes import FAILED, FINISHED, INTERRUPTED, USAGE
from callsheet.errors import CallsheetError, NodeFailed, UsageError

HELP = """callsheet: program graphs for reinforcement learning

  callsheet run AGENT [--env=ENV] [--backend=BACKEND] [flags]
  callsheet launch FILE.py:PROGRAM [--backend=BACKEND] [--dry_run | --detach]
  callsheet resume RUN_FOLDER [--backend=BACKEND] [--num_actors=N] [flags]
  callsheet eval RUN_FOLDER [--num_episodes=20] [--seed=0] [--video=FILE.mp4]
  callsheet export RUN_FOLDER [FOLDER]    the policy, for jax alone
  callsheet graph AGENT [--env=ENV] [--dot | --mermaid | --json | --svg=FILE]
  callsheet status [RUN]          the runs; or the nodes of one, and what they wait for
  callsheet top RUN               the same of a run, anew each second
  callsheet logs RUN [NODE] [-f]  what its nodes have printed, and print now
  callsheet envs [PATTERN]        the environments, and how to install more
  callsheet doctor                what this installation can run, and what it lacks
  callsheet help run AGENT        the flags, the agent's own among them

The exit code is 0 if it finished, 1 if a node failed, 2 for a request that can't be
met, 75 after SIGTERM if `callsheet resume` can go on from there, and else 130, as it is
after Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> None:
  """Runs a command and exits with one of the codes above.

  Where nobody reads what it prints any more (`callsheet help run dqn | head`), it ends
  with 1, without a word.
  """
  try:
    code = _code(list(sys.argv[1:] if argv is None else argv))
    sys.stdout.flush()
  except BrokenPipeError:
    if not _leave_closed_pipes():
      raise
    code = FAILED
  sys.exit(code)


def _code(argv: list[str]) -> int:
  try:
    return _command(argv)
  except UsageError as error:
    return _complain(error, USAGE)
  except NodeFailed as error:
    return _complain(error.reason, USAGE) if error.refused else _complain(error, FAILED)
  except CallsheetError as error:
    return _complain(error, FAILED)
  except KeyboardInterrupt:
    return _complain('interrupted', INTERRUPTED)


def _leave_closed_pipes() -> bool:
  """Lets what is left in the buffers of closed pipes go nowhere.

  Python flushes them when it ends, and would complain then.

  Returns:
    Whether there was such a pipe.
  """
  closed = []
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):  # It is no file, or closed.
      poll = select.poll()
      poll.register(stream.fileno(), 0)
      if any(event & select.POLLERR for _, event in poll.poll(0)):
        closed.append(stream.fileno())
  for number in closed:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
  return bool(closed)


def _complain(what: object, code: int) -> int:
  print(f'callsheet: {what}', file=sys.stderr)
  return code


def _command(argv: list[str]) -> int:
  if argv[:1] == ['help'] and len(argv) > 1:
    argv = [*argv[1:], '--help']
  if not argv or argv[0] in ('help', '--help', '-h'):
    print(HELP, end='')
    return FINISHED
  name, *rest = argv
  commands = {
    'run': _run,
    'resume': _resume,
    'launch': _launch,
    'eval': _eval,
    'export': _export,
    'graph': _graph,
    'status': _status,
    'top': _top,
    'logs': _logs,
    'envs': _envs,
    'doctor': _doctor,
  }
  if name not in commands:
    near = difflib.get_close_matches(name, commands, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    raise UsageError(f'no command {name!r}; {hint}there are: {", ".join(commands)}')
  command: Callable[[list[str]], int] = commands[name]
  return command(rest)


def stay_single(environment: MutableMapping[str, str]) -> None:
  """Has numpy start no threads, before its import: without any, nodes can be forked.

  Whoever has set its variables already is left alone.

  Args:
    environment: of this process; each node gets as many threads as it declares.
  """
  for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
    environment.setdefault(name, '1')


# Imported when asked for, and when everything is there: `callsheet help` needs no JAX.
def _run(argv: list[str]) -> int:
  from callsheet.commands import compilation, requirements

  requirements.for_training()
  compilation.keep(os.environ)
  stay_single(os.environ)
  from callsheet.commands.run import run

  return run(argv)


def _resume(argv: list[str]) -> int:
  from callsheet.commands import compilation, requirements

  requirements.for_training()
  compilation.keep(os.environ)
  stay_single(os.environ)
  from callsheet.commands.resume import resume

  return resume(argv)


def _launch(argv: list[str]) -> int:
  stay_single(os.environ)
  from callsheet.commands.launch_program import launch_program

  return launch_program(argv)


def _eval(argv: list[str]) -> int:
  from callsheet.commands import compilation, requirements

  requirements.for_playing()
  compilation.keep(os.environ)
  from callsheet.commands.evaluate import evaluate

  return evaluate(argv)


def _export(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_playing()
  from callsheet.commands.export import export

  return export(argv)


def _envs(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_listing()
  from callsheet.commands.envs import envs

  return envs(argv)


def _graph(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_training()
  stay_single(os.environ)
  from callsheet.commands.graph import graph

  return graph(argv)


def _status(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_showing()
  from callsheet.commands.status import status

  return status(argv)


def _top(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_showing()
  from callsheet.commands.top import top

  return top(argv)


def _logs(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_showing()
  from callsheet.commands.logs import logs

  return logs(argv)


def _doctor(argv: list[str]) -> int:
  from callsheet.commands import requirements

  requirements.for_diagnosis()
  from callsheet.commands.doctor import doctor

  return doctor(argv)


if __name__ == '__main__':
  main()
