"""Who takes part in the race, and how each is installed and started."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE / 'peers'
# Callsheet as it is in this checkout is what races, wherever it is installed from.
SOURCE = HERE.parent / 'src'


@dataclass(frozen=True)
class Peer:
  """A library that is raced against, in a virtual environment of its own.

  Attributes:
    driver: the file in `peers/` that trains; the pins are in the `.txt` beside it.
    python: the version that its environment is made with.
    imports: what must import for it to count as installed.
    gymnasium: whether it steps environments in Python, as gymnasium (or gym) does.
    check: how its policy is checked; the target is the same for all.
  """

  driver: str
  python: str
  imports: str
  gymnasium: bool
  check: str


_IN_SERIES = (
  'greedy, in its process, while its training waits (a second between checks)'
)
PEER_ENTRANTS = {
  'sb3': Peer('sb3_ppo', '3.11', 'stable_baselines3', True, _IN_SERIES),
  'cleanrl': Peer('cleanrl_dqn', '3.11', 'jax, flax, cleanrl', True, _IN_SERIES),
  'sample_factory': Peer(
    'sample_factory_appo',
    '3.11',
    'sample_factory, torch',
    True,
    'greedy, the newest checkpoint of each second, beside the training',
  ),
  'rejax': Peer('rejax_ppo', '3.12', 'rejax', False, _IN_SERIES),
  'acme': Peer('acme_dqn', '3.10', 'reverb, launchpad', True, _IN_SERIES),
  'rllib': Peer('rllib_ppo', '3.11', 'ray.rllib, torch', True, _IN_SERIES),
}

# The agent as it comes; and told to sample each transition once, for how fast actors
# step while the learner has all that it can take: 32 times is what holds them back.
CALLSHEET_ENTRANTS: dict[str, tuple[str, ...]] = {
  'callsheet': (),
}


def folder() -> Path:
  """Where the peers' environments are: $CALLSHEET_PEERS, or `.venv-peers` here."""
  return Path(
    os.environ.get('CALLSHEET_PEERS') or HERE.parent / '.venv-peers'
  ).resolve()


def python_of(name: str) -> Path:
  return folder() / name / 'bin' / 'python'


def peer_command(name: str) -> list[str]:
  return [str(python_of(name)), str(PEERS / f'{PEER_ENTRANTS[name].driver}.py')]


def callsheet_command(name: str, runs_directory: str) -> list[str]:
  beside = Path(sys.executable).with_name('callsheet')
  flags = ('--env=CartPole-v1', '--backend=processes', '--replay=native', '--name=run')
  return [
    str(beside),
    'run',
    'dqn',
    *flags,
    f'--runs_directory={runs_directory}',
    *CALLSHEET_ENTRANTS[name],
  ]


def missing(name: str) -> str | None:
  """Why this peer can't race; None if it can."""
  peer = PEER_ENTRANTS[name]
  if not python_of(name).exists():
    return 'not installed: benchmarks/race.py --install'
  tried = subprocess.run(
    [str(python_of(name)), '-c', f'import {peer.imports}'],
    capture_output=True,
    text=True,
    env=environment(),
  )
  if tried.returncode == 0:
    return None
  return f'does not import: {(tried.stderr.splitlines() or ["no reason given"])[-1]}'


def environment(paths: str | None = None) -> dict[str, str]:
  """What every entrant is started with: no accelerator, nothing of this process's.

  All have a compilation cache on disk, which only those on JAX use: cold for the first
  run of an entrant, warm from then on.

  Args:
    paths: the PYTHONPATH.
  """
  hidden = ('PYTHONPATH', 'VIRTUAL_ENV')
  kept = {name: value for name, value in os.environ.items() if name not in hidden}
  given = {} if paths is None else {'PYTHONPATH': paths}
  cache = {
    'JAX_COMPILATION_CACHE_DIR': str(folder() / 'jax-cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }
  own = {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
  return {**kept, **given, **cache, **own}


def install(name: str) -> str | None:
  """Makes the environment of a peer from its pins; says why where that failed."""
  peer = PEER_ENTRANTS[name]
  interpreter = find_python(peer.python)
  if interpreter is None:
    return f'no Python {peer.python} was found'
  where = folder() / name
  # The pins are whole sets that were seen to work: nothing is resolved, and a package's
  # own opinion of the newest Python that it knows is not asked.
  pip = ['-m', 'pip', 'install', '-q', '--no-deps', '--ignore-requires-python']
  steps = [
    [interpreter, '-m', 'venv', '--clear', str(where)],
    [str(python_of(name)), *pip, '-r', str(PEERS / f'{peer.driver}.txt')],
  ]
  for step in steps:
    done = subprocess.run(step, capture_output=True, text=True)
    if done.returncode != 0:
      lines = [line for line in done.stderr.splitlines() if 'ERROR' in line]
      return lines[-1] if lines else f'{step[1:3]} failed: {done.stderr[-200:]}'
  return missing(name)


def find_python(version: str) -> str | None:
  """An interpreter of this version: this one, one on the path, or pyenv's."""
  roots = [Path(sys.executable).resolve().parent]
  roots += [Path(part) for part in os.environ.get('PATH', '').split(os.pathsep)]
  pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv')
  roots += sorted((pyenv / 'versions').glob(f'{version}.*/bin'), reverse=True)
  for root in roots:
    found = root / f'python{version}'
    # pyenv's shims answer for versions that it doesn't have.
    if found.exists() and _is_python(found, version):
      return str(found)
  return None


def _is_python(path: Path, version: str) -> bool:
  asked = 'import sys; print("%d.%d" % sys.version_info[:2])'
  said = subprocess.run([str(path), '-c', asked], capture_output=True, text=True)
  return said.returncode == 0 and said.stdout.strip() == version
