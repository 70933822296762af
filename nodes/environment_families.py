"""The families of environments that are known by name, and what each of them needs."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import gymnasium

from callsheet.errors import UsageError
from callsheet.imports import one_at_a_time

# The last Python that a package has wheels for: dm_control needs labmaze.
_LAST = {'dm_control': ('labmaze', (3, 12)), 'envpool': ('envpool', (3, 11))}
_MASKED = 'callsheet.nodes.masked_environments'


@dataclass(frozen=True)
class Family:
  """Environments that come from one package.

  Attributes:
    name: for people.
    prefix: that the names of its environments begin with.
    module: that has to be there; it is not imported to find that out.
    distribution: that has the module.
    extra: of Callsheet's, that installs it; empty where it is always there.
    list_names: its environments, where it is installed; may import it.
  """

  name: str
  prefix: str
  module: str
  distribution: str
  extra: str
  list_names: Callable[[], Iterable[str]]

  def installed(self) -> bool:
    """Whether its module can be imported."""
    return importlib.util.find_spec(self.module) is not None

  def version(self) -> str:
    """Of its distribution."""
    return importlib.metadata.version(self.distribution)

  def names(self) -> list[str]:
    """What can be run, in order; nothing where it isn't installed."""
    return sorted(self.list_names()) if self.installed() else []

  def way_out(self) -> str:
    """How to install it on this Python."""
    command = f'pip install "callsheet[{self.extra}]"'
    package, newest = _LAST.get(self.extra, ('', sys.version_info[:2]))
    if sys.version_info[:2] > newest:
      last = '.'.join(map(str, newest))
      return (
        f'{package}, which it needs, has no wheel for Python '
        f'{platform.python_version()}; take Python 3.10 to {last} and {command}'
      )
    return command

  def require(self, name: str) -> None:
    """Raises a `UsageError` that says how to install what `name` needs."""
    if not self.installed():
      raise UsageError(f'{name} needs {self.distribution}: {self.way_out()}')


def family_of(name: str) -> Family:
  """The family that an environment's name belongs to; Gymnasium's if to no other.

  Args:
    name: `ALE/Pong-v5`, `CartPole-v1`, `module:id`.
  """
  for family in FAMILIES:
    if family.prefix and name.startswith(family.prefix):
      return family
  spec = gymnasium.registry.get(name)
  for family in (_BOX2D, _MUJOCO):
    if spec is not None and _comes_from(spec, family.extra):
      return family
  return _GYMNASIUM


def register(name: str) -> None:
  """Has Gymnasium know an environment whose package registers it on import.

  Raises:
    UsageError: the package isn't installed.
  """
  family = family_of(name)
  family.require(name)
  if family is _ATARI:
    _register_atari()
  elif family is _MINATAR:
    register_minatar()
  elif name.startswith('Masked'):
    importlib.import_module(_MASKED)


def near(name: str, names: Iterable[str]) -> str:
  """What to try instead of a name that nobody has."""
  close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
  return f'did you mean {" or ".join(close)}?' if close else '`callsheet envs` has all'


def register_minatar() -> None:
  """Names MinAtar's environments to Gymnasium, once.

  Seaborn, which it would colour its pictures with, isn't imported: it takes longer than
  all the rest, and nothing is shown here.
  """
  with one_at_a_time:
    if any(name.startswith(_MINATAR.prefix) for name in gymnasium.registry):
      return
    stands_in = 'seaborn' not in sys.modules
    if stands_in:
      sys.modules['seaborn'] = types.ModuleType('seaborn')
    try:
      importlib.import_module('minatar.gym').register_envs()
    finally:
      if stands_in:
        del sys.modules['seaborn']


def import_dm_control() -> None:
  """Imports dm_control's suite without its renderers, whatever MUJOCO_GL says."""
  with one_at_a_time:
    before = os.environ.get('MUJOCO_GL')
    os.environ['MUJOCO_GL'] = 'disable'
    try:
      importlib.import_module('dm_control.suite')
    finally:
      if before is None:
        del os.environ['MUJOCO_GL']
      else:
        os.environ['MUJOCO_GL'] = before


def _register_atari() -> None:
  with one_at_a_time:
    ale_py = importlib.import_module('ale_py')
  ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


def _of_gymnasium(*packages: str) -> list[str]:
  """The newest version of each environment that these of its packages have."""
  newest: dict[str, gymnasium.envs.registration.EnvSpec] = {}
  for spec in gymnasium.registry.values():
    if any(_comes_from(spec, package) for package in packages):
      kept = newest.setdefault(spec.name, spec)
      if (spec.version or 0) > (kept.version or 0):
        newest[spec.name] = spec
  return [spec.id for spec in newest.values()]


def _comes_from(spec: gymnasium.envs.registration.EnvSpec, package: str) -> bool:
  return str(spec.entry_point).startswith(f'gymnasium.envs.{package}')


def _classic() -> list[str]:
  importlib.import_module(_MASKED)
  masked = [name for name in gymnasium.registry if name.startswith('Masked')]
  return [*_of_gymnasium('classic_control', 'toy_text'), *masked]


def _atari() -> list[str]:
  _register_atari()
  return [name for name in gymnasium.registry if name.startswith(_ATARI.prefix)]


def _minatar() -> list[str]:
  # Its games are the files of a folder; importing it imports seaborn and pandas.
  found = importlib.util.find_spec('minatar')
  assert found is not None and found.origin is not None
  games = (Path(found.origin).parent / 'environments').glob('[a-z]*.py')
  return [f'MinAtar/{game.stem.title().replace("_", "")}-v1' for game in games]


def _dm_control() -> list[str]:
  import_dm_control()
  tasks = sys.modules['dm_control.suite'].ALL_TASKS
  return [f'dm_control/{domain}-{task}' for domain, task in tasks]


def _bsuite() -> list[str]:
  with one_at_a_time:
    sweep = importlib.import_module('bsuite.sweep')
  return [f'bsuite/{each}' for each in sweep.SWEEP]


def _envpool() -> list[str]:
  # It needs more than this module, and only where it is asked for.
  module = importlib.import_module('callsheet.nodes.envpool_environments')
  names: list[str] = module.list_envpool()
  return names


_GYMNASIUM = Family('Gymnasium', '', 'gymnasium', 'gymnasium', '', _classic)
_BOX2D = Family('Box2D', '', 'Box2D', 'box2d', 'box2d', lambda: _of_gymnasium('box2d'))
_MUJOCO = Family(
  'MuJoCo', '', 'mujoco', 'mujoco', 'mujoco', lambda: _of_gymnasium('mujoco')
)
_ATARI = Family('Atari', 'ALE/', 'ale_py', 'ale-py', 'atari', _atari)
_MINATAR = Family('MinAtar', 'MinAtar/', 'minatar', 'minatar', 'minatar', _minatar)
_DM_CONTROL = Family(
  'dm_control', 'dm_control/', 'dm_control', 'dm-control', 'dm_control', _dm_control
)
_BSUITE = Family('bsuite', 'bsuite/', 'bsuite', 'bsuite', 'bsuite', _bsuite)
_ENVPOOL = Family('EnvPool', 'envpool/', 'envpool', 'envpool', 'envpool', _envpool)

FAMILIES = (
  _GYMNASIUM,
  _BOX2D,
  _MUJOCO,
  _ATARI,
  _MINATAR,
  _DM_CONTROL,
  _BSUITE,
  _ENVPOOL,
)
