"""One run and one fault: begins it, strikes, waits for its end, and audits."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.faults import LAUNCHER, Fault
from tests.chaos.ledger import audit
from tests.chaos.troubled import STRIKE

ROOT = Path(__file__).parents[2]
_DISK = 96  # MB, of a disk that becomes full
_LASTS = 5.0  # seconds
# Seconds in which a replay that was struck is back, or, as the run ends, is ended too.
_SETTLES = 20.0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a run.

  Attributes:
    fault: that it suffered.
    complaints: what was not as promised; none if all is well.
    value: its last evaluated return.
    restarts: of nodes.
    seconds: that it took.
  """

  fault: Fault
  complaints: tuple[str, ...]
  value: float | None
  restarts: int
  seconds: float

  def line(self) -> str:
    """As one line of JSON."""
    return json.dumps({**dataclasses.asdict(self), 'ok': not self.complaints})


class Ended(Exception):
  """The run had reached its target before the fault could strike."""


_TRIES = 5


def suffer(fault: Fault, target: float, patience: float = 600.0) -> Outcome:
  """Has a DQN run suffer a fault; another seed's, if one learns before it can.

  Args:
    fault: which.
    target: the return that the run has to reach.
    patience: seconds that it may take.

  Raises:
    Ended: so did all.
  """
  for another in range(_TRIES):
    with contextlib.suppress(Ended):
      seed = fault.seed + another * 1_000_000
      return _suffer(dataclasses.replace(fault, seed=seed), target, patience)
  raise Ended(f'{_TRIES} runs had ended before {fault}')


def _suffer(fault: Fault, target: float, patience: float) -> Outcome:
  begun = time.monotonic()
  with (
    tempfile.TemporaryDirectory(prefix='chaos-') as folder,
    _disk(fault, Path(folder, 'runs')) as runs,
  ):
    run = _Run(Path(folder), runs, fault, target, begun + patience)
    try:
      complaints = run.complaints()
    finally:
      run.close()
    value, restarts = run.value(), run.restarts()
  seconds = time.monotonic() - begun
  return Outcome(fault, tuple(complaints), value, restarts, round(seconds, 1))


class _Run:
  def __init__(
    self, folder: Path, runs: Path, fault: Fault, target: float, until: float
  ) -> None:
    self._fault, self._target, self._until = fault, target, until
    self._ledger, self._folder = folder / 'ledger', runs / 'run'
    self._ledger.mkdir()
    self._output = folder / 'output.txt'
    self._process = self._begin(
      'run',
      'dqn',
      '--env=CartPole-v1',
      '--backend=processes',
      '--snapshot_every=4s',
      '--name=run',
      f'--runs_directory={runs}',
      f'--seed={fault.seed}',
      f'--target_return={target}',
      *fault.flags,
    )

  def complaints(self) -> list[str]:
    """Strikes, and follows the run to its end."""
    try:
      self._strike()
    except AssertionError as error:
      return [str(error)]
    struck = time.monotonic()
    code = self._end()
    if code != 0:
      return [f'it ended with {code}: {self._said()[-2000:]}']
    killed = self._fault.victim == 'replay' and self._fault.kind.startswith('SIG')
    killed = killed and time.monotonic() - struck < _SETTLES
    found = audit(self._ledger, self._folder, replay_killed=killed)
    value = self.value()
    if value is None or value < self._target:
      found.append(f'its return is {value}, not {self._target}')
    return found

  def value(self) -> float | None:
    """The last return that was evaluated."""
    return self._row().get('evaluator/return')

  def restarts(self) -> int:
    """Of its nodes."""
    return len(re.findall(r'; restart \d+ in', self._said()))

  def close(self) -> None:
    """Leaves no process."""
    for process in self._family():
      with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    self._process.wait()

  def _begin(self, *argv: str) -> subprocess.Popen[bytes]:
    with open(self._output, 'ab') as output:
      fault = json.dumps(dataclasses.asdict(self._fault))
      return subprocess.Popen(
        [sys.executable, '-m', 'tests.chaos.dqn', fault, str(self._ledger), *argv],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
      )

  def _strike(self) -> None:
    self._wait_for(lambda: (self._row().get('learner_steps') or 0) > 0)
    self._wait_for(lambda: any((self._folder / 'snapshots').glob('0*')))
    strike = time.monotonic() + self._fault.at
    self._wait_for(lambda: time.monotonic() >= strike)
    kind, victim = self._fault.kind, self._fault.victim
    if kind == 'full disk':
      self._fill()
    elif not kind.startswith('SIG'):
      (self._ledger / STRIKE).touch()
    elif victim == LAUNCHER:
      self._strike_launcher(signal.Signals[kind])
    else:
      with contextlib.suppress(ProcessLookupError):
        os.kill(self._pid(victim), signal.Signals[kind])

  def _strike_launcher(self, number: signal.Signals) -> None:
    family = self._family()
    os.kill(self._process.pid, number)
    if number == signal.SIGSTOP:
      time.sleep(_LASTS)
      os.kill(self._process.pid, signal.SIGCONT)
      return
    self._process.wait()
    _, left = psutil.wait_procs(family, timeout=30)
    if left:
      raise AssertionError(f'the launcher left {left}')
    self._process = self._begin('resume', str(self._folder))

  def _fill(self) -> None:
    ballast = self._folder.parent / 'ballast'
    with contextlib.suppress(OSError), open(ballast, 'wb', buffering=0) as file:
      while True:
        file.write(bytes(2**16))
    time.sleep(_LASTS)
    ballast.unlink()

  def _pid(self, node: str) -> int:
    log = self._folder / 'logs' / f'{node.replace("/", "-")}.log'
    found = re.findall(r'process (\d+) starts', log.read_text())
    return int(found[-1])

  def _end(self) -> int | str:
    with contextlib.suppress(subprocess.TimeoutExpired):
      return self._process.wait(max(1.0, self._until - time.monotonic()))
    return 'no end in time'

  def _row(self) -> dict[str, Any]:
    with contextlib.suppress(OSError, IndexError, ValueError):
      lines = (self._folder / 'metrics.jsonl').read_text().splitlines()
      row: dict[str, Any] = json.loads(lines[-1])
      return row
    return {}

  def _said(self) -> str:
    return self._output.read_text(errors='replace')

  def _family(self) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
      process = psutil.Process(self._process.pid)
      return [process, *process.children(recursive=True)]
    return []

  def _wait_for(self, condition: Callable[[], bool]) -> None:
    while not condition():
      code = self._process.poll()
      if code == 0 and (self.value() or 0.0) >= self._target:
        raise Ended
      if code is not None or time.monotonic() > self._until:
        raise AssertionError(f'no fault yet, and it failed: {self._said()[-2000:]}')
      time.sleep(0.05)


@contextlib.contextmanager
def _disk(fault: Fault, place: Path) -> Iterator[Path]:
  """Where runs go: a small disk of its own, if that is to become full."""
  place.mkdir()
  if fault.kind != 'full disk':
    yield place
    return
  size = f'size={_DISK}m'
  mount = ['mount', '-t', 'tmpfs', '-o', size, 'tmpfs', str(place)]
  subprocess.run(mount, check=True, capture_output=True)
  try:
    yield place
  finally:
    subprocess.run(['umount', '-l', str(place)], check=True)


def can_mount() -> bool:
  """Whether there can be a disk that becomes full: that takes a superuser."""
  return os.geteuid() == 0 and shutil.which('mount') is not None
