"""What `callsheet doctor` makes of what it finds: pure functions, one a check."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from callsheet.commands.machine import Folder
from callsheet.commands.packages import Needed, Trial

Standing = Literal['ok', 'warning', 'broken']

OLDEST, NEWEST = (3, 10), (3, 13)
WHEELS_OF_OLDEST = ('dm-launchpad', 'dm-reverb', 'tensorflow-cpu')
THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')

# Open files of the launcher, as they were counted in runs with two and with ten actors;
# no other process of the program has as many.
FILES_OF_A_RUN, FILES_OF_AN_ACTOR = 25, 4

_GIB = 1 << 30
# What Docker gives unless told otherwise is 64 MiB; Ray wants a third of the memory.
_LITTLE_SHARED_MEMORY = _GIB
_LITTLE_ROOM = _GIB


@dataclass(frozen=True)
class Check:
  """What was found out about one thing.

  Attributes:
    name: of the thing.
    standing: 'broken' if nothing can run like this.
    what: was found.
    to_do: what would be better, empty if nothing.
  """

  name: str
  standing: Standing
  what: str
  to_do: str = ''


def check_python(version: tuple[int, int, int], executable: str, system: str) -> Check:
  """Whether Callsheet was seen to run on this Python."""
  what = f'{".".join(map(str, version))}, {system}: {executable}'
  seen = f'Python {_dotted(OLDEST)} to {_dotted(NEWEST)}'
  if version[:2] < OLDEST:
    return Check('Python', 'broken', what, f'take {seen}: make run PYTHON=3.13')
  if version[:2] > NEWEST:
    return Check('Python', 'warning', what, f'not seen to work yet; {seen} was')
  if not system.startswith('Linux'):
    return Check('Python', 'warning', what, 'not seen to work: Linux was')
  return Check('Python', 'ok', what)


def check_packages(needed: Sequence[Needed] | None, training: Trial) -> Check:
  """Whether everything that a run imports is there, and can be imported."""
  name = 'packages'
  if needed is None:
    return Check(
      name, 'broken', 'Callsheet itself is not installed', 'pip install . in a checkout'
    )
  own = [each for each in needed if not each.extra and each.applies]
  # Reverb and Launchpad are asked of, but a run goes without.
  asked = [each for each in own if each.name not in WHEELS_OF_OLDEST]
  wrong = [each for each in asked if not each.fits]
  if wrong:
    missing = ', '.join(f'{e.name} {e.found or "missing"}' for e in wrong)
    way_out = ' '.join(f'"{e.name}{e.wanted}"' for e in wrong)
    standing: Standing = 'warning' if training.fine else 'broken'
    return Check(
      name, standing, f'not as declared: {missing}', f'pip install {way_out}'
    )
  if not training.fine:
    return Check(
      name,
      'broken',
      f'callsheet run can not be imported: {training.said}',
      '`make run` in a checkout sets up the whole set',
    )
  return Check(name, 'ok', f'all {len({each.name for each in asked})} that it needs')


def check_wheels(
  version: tuple[int, int, int], found: Mapping[str, str], trials: Mapping[str, Trial]
) -> list[Check]:
  """Reverb's and Launchpad's wheels, which end at Python 3.10.

  Args:
    version: of this Python.
    found: the version of each that is installed, empty for none.
    trials: how their imports went.
  """
  checks = []
  use = {
    'dm-reverb': '--replay=reverb',
    'dm-launchpad': '--backend=launchpad',
    'tensorflow-cpu': '--replay=reverb',
  }
  for name in WHEELS_OF_OLDEST:
    trial = trials.get(name, Trial('', True))
    if found.get(name) and trial.fine:
      checks.append(Check(name, 'ok', found[name]))
    elif found.get(name):
      what = f'{found[name]}, but its import ends: {trial.said}'
      to_do = f'{use[name]} needs it: make run PYTHON=3.10 sets up a set that works'
      checks.append(Check(name, 'warning', what, to_do))
    elif version[:2] > OLDEST:
      what = f'no wheel for Python {_dotted(version[:2])}'
      checks.append(Check(name, 'ok', f'{what}; all but {use[name]} works without'))
    else:
      to_do = f'{use[name]} needs it: pip install callsheet brings it, on Linux x86-64'
      checks.append(Check(name, 'warning', 'not installed', to_do))
  return checks


def check_jax(
  trial: Trial,
  version: str,
  devices: Sequence[tuple[str, str]],
  has_gpu: bool,
  platforms: str,
) -> Check:
  """Whether JAX has devices, and those that the machine has.

  Args:
    trial: how its import went.
    version: JAX's.
    devices: platform and kind of each.
    has_gpu: whether there is a driver with a GPU.
    platforms: what JAX_PLATFORMS says.
  """
  if not trial.fine:
    to_do = 'pip install -U jax; JAX_PLATFORMS=cpu leaves accelerators alone'
    return Check('jax', 'broken', f'shows no devices: {trial.said}', to_do)
  kinds = [
    f'{len(list(same))} x {platform} ({kind})' if platform != 'cpu' else 'cpu'
    for (platform, kind), same in itertools.groupby(devices)
  ]
  what = f'{version}: {", ".join(kinds)}'
  if has_gpu and all(platform == 'cpu' for platform, _ in devices):
    if platforms:
      to_do = f'JAX_PLATFORMS={platforms} hides a GPU: unset it to learn on that'
    else:
      to_do = f'a GPU goes unused: pip install "jax[cuda12]=={version}"'
    return Check('jax', 'warning', what, to_do)
  return Check('jax', 'ok', what)


def check_network(loopback_error: str, ports: Mapping[int, str]) -> list[Check]:
  """Whether nodes and a browser can come over loopback.

  Args:
    loopback_error: why 127.0.0.1 can't be reached; empty if it can.
    ports: those that were asked for, and why each can't be had.
  """
  checks = [Check('loopback', 'ok', '127.0.0.1 answers at a free port')]
  if loopback_error:
    to_do = 'bring it up: ip link set lo up; a firewall must let it through'
    checks = [Check('loopback', 'broken', f'127.0.0.1: {loopback_error}', to_do)]
  for port, error in ports.items():
    name = f'port {port}'
    if error:
      to_do = f'see who has it: ss -ltnp sport = :{port}; or take another'
      checks.append(Check(name, 'warning', error, to_do))
    else:
      checks.append(Check(name, 'ok', 'free'))
  return checks


def check_shared_memory(size: int | None, memory_error: str) -> Check:
  """Whether large messages go through memory that both sides map.

  Args:
    size: bytes of /dev/shm; None if there is none.
    memory_error: why there is no anonymous shared memory; empty if there is.
  """
  what = 'no /dev/shm' if size is None else f'/dev/shm {_bytes(size)}'
  if memory_error:
    what += f', no memfd ({memory_error})'
    to_do = 'messages are copied through sockets; Linux 3.17 and later do better'
    return Check('shared memory', 'warning', what, to_do)
  if size is None or size < _LITTLE_SHARED_MEMORY:
    to_do = (
      'local programs need none, --backend=ray does: docker run --shm-size=8g, or '
      'mount -o remount,size=8g /dev/shm'
    )
    return Check('shared memory', 'warning', what, to_do)
  return Check('shared memory', 'ok', what)


def check_open_files(soft: int, hard: int, num_actors: int) -> Check:
  """Whether the limit of open files lets so many actors be launched."""
  wanted = FILES_OF_A_RUN + FILES_OF_AN_ACTOR * num_actors
  what = f'limit {_limit(soft)}; {num_actors} actors take about {wanted}'
  if soft < 0 or soft >= wanted:
    return Check('open files', 'ok', what)
  most = max(0, (soft - FILES_OF_A_RUN) // FILES_OF_AN_ACTOR)
  if hard < 0 or hard >= wanted:
    to_do = f'ulimit -n {_limit(hard)} (it has room for {most} actors)'
  else:
    to_do = f'room for {most} actors: raise the hard limit, {hard}, or take hosts more'
  standing: Standing = 'broken' if most < 1 else 'warning'
  return Check('open files', standing, what, to_do)


def check_folder(name: str, folder: Folder, way_out: str) -> Check:
  """Whether a folder can be written, and has room.

  Args:
    name: what it is for.
    folder: what was found.
    way_out: how to name another.
  """
  what = f'{folder.path} on {folder.system}, {_bytes(folder.free)} free'
  if folder.error:
    return Check(name, 'broken', f'{what}: {folder.error}', way_out)
  if folder.free < _LITTLE_ROOM:
    return Check(name, 'warning', what, f'make room, or {way_out}')
  return Check(name, 'ok', what)


def check_threads(
  cores: int, quota: float | None, environment: Mapping[str, str]
) -> Check:
  """Whether nodes get threads as they declare, and can be forked.

  Args:
    cores: that this process may run on.
    quota: a container's limit, in cores; None for none.
    environment: of this process.
  """
  what = f'{cores} cores' if cores != 1 else 'one core'
  if quota is not None and quota < cores:
    what += f', of which a container may use {quota:g}'
  more = {name: environment[name] for name in THREADS if environment.get(name)}
  several = {name: value for name, value in more.items() if value != '1'}
  if several:
    shown = ', '.join(f'{name}={value}' for name, value in several.items())
    to_do = f'unset {" ".join(several)}: each node starts a second sooner as a fork'
    return Check('cores and threads', 'warning', f'{what}; {shown}', to_do)
  return Check(
    'cores and threads', 'ok', f'{what}; each node has the threads it declares'
  )


def check_extras(needed: Sequence[Needed], python: tuple[int, int]) -> list[Check]:
  """The optional packages, one check an extra; none is ever broken."""
  checks = []
  own = {each.name for each in needed if not each.extra}
  by_extra: dict[str, list[Needed]] = {}
  for each in needed:
    if each.extra not in ('', 'dev', 'environments'):
      by_extra.setdefault(each.extra, []).append(each)
  for extra, wanted in by_extra.items():
    missing = [each for each in wanted if each.applies and not each.fits]
    command = f'pip install "callsheet[{extra}]"'
    if not any(each.applies for each in wanted):
      checks.append(Check(extra, 'ok', f'no wheel for Python {_dotted(python)}'))
    elif missing:
      named = ', '.join(dict.fromkeys(e.name for e in missing))
      checks.append(Check(extra, 'ok', f'not installed: {named}', command))
    else:
      new = [each for each in wanted if each.name not in own]
      direct = [each for each in new if each.of == 'callsheet'] or new
      shown = dict.fromkeys(f'{each.name} {each.found}' for each in direct)
      checks.append(Check(extra, 'ok', ', '.join(shown)))
  return checks


def can_run(checks: Sequence[Check]) -> bool:
  """Whether nothing is broken."""
  return all(check.standing != 'broken' for check in checks)


def _dotted(version: tuple[int, ...]) -> str:
  return '.'.join(map(str, version))


def _limit(count: int) -> str:
  return 'unlimited' if count < 0 else f'{count:,}'.replace(',', '')


def _bytes(size: int) -> str:
  return f'{size / _GIB:.1f} GiB' if size >= _GIB else f'{size / (1 << 20):.0f} MiB'
