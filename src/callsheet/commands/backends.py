"""Launch backends on a command line: `--backend=ssh --ssh_hosts=a,b --dry_run`."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from absl import flags

from callsheet.commands.flags import config_names, define_config, read_config
from callsheet.errors import UsageError
from callsheet.launch import BACKENDS, Backend, backend_of
from callsheet.launch.crew import Described, Detachable
from callsheet.programs.plan import Plan

OWN = ('backend', 'dry_run', 'detach', 'pdb')
# Said by the command itself, or by nobody.
_NOT_FLAGS = frozenset({'name', 'log_directory', 'detach', 'pdb'})


def define(values: flags.FlagValues) -> None:
  """Defines `--backend`, and a flag for each option of each backend."""
  names = sorted(BACKENDS)
  flags.DEFINE_string(
    'backend', 'processes', f'How it runs: {", ".join(names)}.', flag_values=values
  )
  what = 'Print what would be submitted, and start nothing.'
  flags.DEFINE_bool('dry_run', False, what, flag_values=values)
  flags.DEFINE_bool(
    'detach', False, 'Submit it as a job that goes on by itself.', flag_values=values
  )
  what = 'Open pdb where a node raises an exception; threads and processes can.'
  flags.DEFINE_bool('pdb', False, what, flag_values=values)
  for name in names:
    define_config(values, _options(name), prefix=f'{name}_', skip=_NOT_FLAGS)


def sections(values: flags.FlagValues) -> dict[str, list[str]]:
  """The names of the chosen backend's flags, by heading, for a page of help."""
  if values.backend not in BACKENDS:
    return {}
  names = config_names(_options(values.backend), _NOT_FLAGS)
  described = [f'{values.backend}_{name}' for name in names]
  return {f'the {values.backend} backend': described} if described else {}


def read(values: flags.FlagValues, log_directory: str | None = None) -> Backend:
  """The backend that the command line describes.

  Args:
    values: the parsed flags.
    log_directory: where the nodes' output goes, for a backend that keeps it in files.

  Raises:
    UsageError: there is none of this name, or a flag is another backend's.
  """
  if values.backend not in BACKENDS:
    return backend_of(values.backend)
  for name in sorted(set(BACKENDS) - {values.backend}):
    for option in config_names(_options(name), _NOT_FLAGS):
      if values[f'{name}_{option}'].present:
        raise UsageError(
          f'--{name}_{option} is an option of --backend={name}, but the backend is '
          f'{values.backend}'
        )
  kind = _options(values.backend)
  chosen = read_config(values, kind, prefix=f'{values.backend}_', skip=_NOT_FLAGS)
  if log_directory is not None and any(
    field.name == 'log_directory' for field in dataclasses.fields(kind)
  ):
    chosen = dataclasses.replace(chosen, log_directory=log_directory)
  if values.pdb:
    if not any(field.name == 'pdb' for field in dataclasses.fields(kind)):
      raise UsageError(
        f'--pdb: nodes of the {values.backend} backend may run on other hosts, which '
        'have no terminal; take --backend=threads or --backend=processes'
      )
    chosen = dataclasses.replace(chosen, pdb=True)
  backend: Backend = chosen
  return backend


def given(values: flags.FlagValues) -> dict[str, object]:
  """The options of the chosen backend that the command line gave, by flag."""
  if values.backend not in BACKENDS:
    return {}
  names = config_names(_options(values.backend), _NOT_FLAGS)
  own = [f'{values.backend}_{name}' for name in names]
  return {name: values[name].value for name in own if values[name].present}


def keeps_logs(backend: Backend) -> bool:
  """Whether the nodes' output goes into files, so that the terminal is free."""
  shares = getattr(backend, 'shares_terminal', False)
  shares = shares or getattr(backend, 'pdb', False)  # A debugger asks there.
  return not shares and getattr(backend, 'log_directory', None) is not None


def elsewhere(backend: Backend) -> bool:
  """Whether nodes may run on other machines: something is submitted then."""
  return isinstance(backend, Described)


def dry_run(backend: Backend, plan: Plan) -> str:
  """What would be submitted.

  Raises:
    UsageError: this backend submits nothing.
  """
  if isinstance(backend, Described):
    return backend.dry_run(plan)
  raise UsageError(
    f'--dry_run: the {backend.name} backend submits nothing, it runs the program here; '
    f'leave it out, or name one of {_those(Described)}'
  )


def submit(backend: Backend, plan: Plan) -> str:
  """Submits the program as a job of its own; gives what to tell the user.

  Raises:
    UsageError: this backend can't.
  """
  if isinstance(backend, Detachable):
    return backend.submit(plan)
  raise UsageError(
    f'--detach: a program of the {backend.name} backend ends with its launcher; leave '
    f'it out, or name one of {_those(Detachable)}'
  )


def _those(protocol: Any) -> str:
  method = 'dry_run' if protocol is Described else 'submit'
  return ', '.join(name for name in sorted(BACKENDS) if hasattr(BACKENDS[name], method))


def _options(name: str) -> type[Any]:
  return cast(type[Any], BACKENDS[name])
