"""`callsheet run AGENT`: trains an agent until its target or its budget is reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from absl import flags
from rich.console import Console

from callsheet.agents import registry
from callsheet.commands import backends, dashboard, folders, report, seeing
from callsheet.commands.exit_codes import PREEMPTED
from callsheet.commands.flags import define_config, one_argument, parse
from callsheet.commands.preparing import Run, prepare
from callsheet.commands.run_flags import USAGE, debug, page, run_flags
from callsheet.errors import NodeFailed, UsageError
from callsheet.launch import Terminal, start
from callsheet.launch.launching import Terminated, terminated_like_interrupted
from callsheet.launch.observe.gathering import Observing
from callsheet.nodes import snapshots
from callsheet.programs.plan import Plan


def run(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  values = run_flags()
  # An agent's own flags are known once the agent is, wherever it stands.
  known = [argument for argument in argv if argument in registry.names()]
  if known:
    define_config(values, registry.find(known[0]).config)
  arguments = parse(values, argv, known_only=not known)
  if values.help:
    print(page(values, known))
    return 0
  if not known:
    arguments = [each for each in arguments if not each.startswith('-')]
  name = one_argument(arguments, f'agent ({", ".join(registry.names())})', USAGE)
  if name in registry.names():
    debug(values, registry.is_offline(name))
  run = prepare(name, values)
  plan = run.program.plan()
  if values.dry_run:
    print(backends.dry_run(run.backend, plan))
    return 0
  folder = folders.make(run.folder, run.config)
  return carry_out(run, plan, folder, values)


def carry_out(
  run: Run, plan: Plan, folder: folders.Folder, values: flags.FlagValues
) -> int:
  """Runs a prepared run in its folder; returns the exit code.

  Raises:
    KeyboardInterrupt: after Ctrl-C, or SIGTERM of a run that can't be resumed.
    NodeFailed: a node did.
  """
  backend = run.backend
  console = Console(highlight=False)
  console.print(
    f'{run.title}, as {backend.name}, {run.source}: {run.folder}', soft_wrap=True
  )
  for line in run.said:
    console.print(line, soft_wrap=True)
  if values.detach:
    console.print(backends.submit(backend, plan), soft_wrap=True)
    return 0
  observing = Observing(folder.path, backend.name)
  try:
    with (
      terminated_like_interrupted(),
      observing,
      start(plan, backend, terminal=Terminal(console)) as running,
      seeing.seen(values, running, observing, _printer(console), folder.path),
    ):
      dashboard.follow(
        running,
        running.client('recorder').latest,
        console,
        run.target_return,
        live=backends.keeps_logs(backend),
        acts=run.acts,
      )
  except (KeyboardInterrupt, UsageError, NodeFailed) as error:
    rows = folders.read_metrics(folder.path)
    if isinstance(error, NodeFailed):
      # Its log stays; but actors may step before another node is refused what it asks.
      keep = not error.refused or any(map(report.has_learnt, rows))
    else:
      keep = any(map(report.has_begun, rows))
    if not keep and not run.resumed:
      folders.discard(folder)
      raise
    resumable = bool(snapshots.numbered(Path(folder.path, snapshots.IN_RUN)))
    _conclude(run, folder.path, console, observing)
    if resumable:
      console.print(f'  go on: callsheet resume {run.folder}', soft_wrap=True)
    if resumable and isinstance(error, Terminated):
      return PREEMPTED
    raise
  _conclude(run, folder.path, console, observing)
  return 0


def _printer(console: Console) -> Callable[[str], None]:
  return lambda line: console.print(line, soft_wrap=True)


def _conclude(run: Run, directory: str, console: Console, observing: Observing) -> None:
  rows = folders.read_metrics(directory)
  if rows:
    try:
      report.draw_curve(directory, rows, run.title)
    except OSError as error:
      console.print(f'the learning curve could not be written: {error}', soft_wrap=True)
  if held := observing.bottleneck():
    console.print(held, soft_wrap=True)
  summary = report.summary(run.folder, rows, run.target_return)
  console.print(summary, soft_wrap=True)
