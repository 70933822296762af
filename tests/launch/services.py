"""Nodes for the conformance suite, and programs made of them."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from callsheet import Node, OnFailure, Program, Resources, blocking, call_async
from callsheet.errors import UsageError


class Oops(Exception):
  """An exception of the user's own."""


class Tally:
  """Counts and remembers."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._total = 0
    self._notes: list[object] = []

  def increment(self, amount: int = 1) -> int:
    with self._lock:
      self._total += amount
      return self._total

  def total(self) -> int:
    return self._total

  def note(self, what: object) -> None:
    with self._lock:
      self._notes.append(what)

  def notes(self) -> list[object]:
    return list(self._notes)


class Greeter:
  def greet(self, name: str) -> str:
    return f'hello {name}'


class Caller:
  """Greets once and is done."""

  def __init__(self, greeter: Greeter, tally: Tally) -> None:
    self._greeter, self._tally = greeter, tally

  def run(self) -> None:
    self._tally.note(self._greeter.greet('world'))


class Mailbox:
  """A queue that blocks whoever takes from it while it is empty."""

  def __init__(self) -> None:
    self._items: queue.Queue[int] = queue.Queue()
    self._closed = threading.Event()

  def put(self, item: int) -> None:
    self._items.put(item)

  @blocking
  def take(self) -> int:
    while not self._closed.is_set():
      try:
        return self._items.get(timeout=0.1)
      except queue.Empty:
        continue
    raise RuntimeError('closed')

  def close(self) -> None:
    self._closed.set()


class Heart:
  """Beats as long as it lives."""

  def __init__(self, tally: Tally, name: str) -> None:
    self._tally, self._name = tally, name

  def run(self, stop: threading.Event) -> None:
    while not stop.wait(0.05):
      self._tally.note(self._name)


class Producer:
  def __init__(self, mailbox: Mailbox, count: int) -> None:
    self._mailbox, self._count = mailbox, count

  def run(self) -> None:
    for item in range(self._count):
      self._mailbox.put(item)


class Consumer:
  """Takes for ever; the stop has to end it in the middle of a blocked call."""

  def __init__(self, mailbox: Mailbox, tally: Tally) -> None:
    self._mailbox, self._tally = mailbox, tally

  def run(self, stop: threading.Event) -> None:
    while not stop.is_set():
      self._tally.note(self._mailbox.take())


class Watcher:
  """Ends the program once the tally has so many notes."""

  def __init__(self, tally: Tally, count: int) -> None:
    self._tally, self._count = tally, count

  def run(self, stop: threading.Event) -> None:
    while len(self._tally.notes()) < self._count and not stop.wait(0.05):
      pass


class Player:
  """Hits the ball back to the other player, for graphs with a circle."""

  def __init__(self, other: Player, serves: bool, hits: int) -> None:
    self._other, self._serves, self._hits = other, serves, hits
    self._over = threading.Event()

  def hit(self, count: int) -> None:
    if count >= self._hits:
      self._over.set()
    else:
      call_async(self._other.hit, count + 1)
    if count >= self._hits - 1:
      self._over.set()

  def run(self, stop: threading.Event) -> None:
    if self._serves:
      self._other.hit(0)
    while not self._over.is_set() and not stop.is_set():
      self._over.wait(0.05)


class Meeting:
  """Lets nobody go before so many have come."""

  def __init__(self, count: int) -> None:
    self._all = threading.Barrier(count)

  @blocking
  def come(self) -> int:
    return self._all.wait(timeout=60)


class Fragile:
  def fail(self) -> None:
    raise Oops('on purpose')


class Fan:
  """Many calls at once, none of which could end alone."""

  def __init__(self, meeting: Meeting, count: int, tally: Tally) -> None:
    self._meeting, self._count, self._tally = meeting, count, tally

  def run(self) -> None:
    calls = (call_async(self._meeting.come) for _ in range(self._count))
    futures: list[Future[int]] = list(calls)
    self._tally.note(sorted(future.result() for future in futures))


class BadStart:
  def __init__(self, other: Pings | None = None) -> None:
    raise Oops('no start')

  def run(self) -> None:
    raise AssertionError('never')


class BadRun:
  """Fails, once the other node is there, if it knows one."""

  def __init__(self, other: Pings | None = None) -> None:
    self._other = other

  def run(self) -> None:
    if self._other is not None:
      self._other.ping()
    print('about to fail')
    raise Oops('no run')


class Picky:
  def __init__(self) -> None:
    raise UsageError('not with me')


class BadCaller:
  """Calls a handler that fails, catches it once, then lets it through."""

  def __init__(self, fragile: Fragile, tally: Tally) -> None:
    self._fragile, self._tally = fragile, tally

  def run(self) -> None:
    try:
      self._fragile.fail()
    except Oops as error:
      self._tally.note((str(error), str(error.__cause__)))
    self._fragile.fail()


class Forever:
  """Waits for the stop; notes its name when it is closed, and that it has started."""

  def __init__(self, name: str, path: str, *callees: object) -> None:
    self._name, self._path = name, path

  def run(self, stop: threading.Event) -> None:
    started(self._path)
    stop.wait()

  def ping(self) -> str:
    return self._name

  def pid(self) -> int:
    return os.getpid()

  def close(self) -> None:
    with open(self._path, 'a') as file:
      file.write(f'{self._name}\n')


def started(path: str) -> None:
  """Notes that a node has begun to run."""
  with open(f'{path}.started', 'a') as file:
    file.write('.')


def wait_until_started(path: str, count: int) -> None:
  """Waits for so many nodes: one that is stopped before it runs notes nothing."""
  until = time.monotonic() + 60
  while not (
    os.path.exists(f'{path}.started') and os.path.getsize(f'{path}.started') >= count
  ):
    assert time.monotonic() < until
    time.sleep(0.02)


class Seer:
  """Tells what its process sees."""

  def environment(self, name: str) -> str | None:
    return os.environ.get(name)


class Spinner:
  """A loop that asks nobody whether to stop."""

  def run(self) -> None:
    while True:
      time.sleep(0.01)


class Stubborn(Spinner):
  """Doesn't end when it is asked to."""

  def __init__(self, path: str) -> None:
    self._path = path

  def run(self) -> None:
    started(self._path)
    super().run()

  def close(self) -> None:
    time.sleep(60)


class Pings(Protocol):
  def ping(self) -> str: ...


class Dependent:
  """Needs another node all the time."""

  def __init__(self, other: Pings) -> None:
    self._other = other

  def run(self, stop: threading.Event) -> None:
    while not stop.wait(0.02):
      self._other.ping()


class Suicide:
  """Its process is killed as the kernel would for want of memory."""

  def __init__(self, delay: float) -> None:
    self._delay = delay

  def ping(self) -> str:
    return 'here'

  def run(self) -> None:
    time.sleep(self._delay)
    os.kill(os.getpid(), signal.SIGKILL)


class Phoenix:
  """Fails in its first lives; each life is noted."""

  def __init__(self, tally: Tally, failures: int, kill: bool = False) -> None:
    self._tally, self._failures, self._kill = tally, failures, kill

  def run(self) -> None:
    if self._tally.increment() <= self._failures:
      if self._kill:
        os.kill(os.getpid(), signal.SIGKILL)
      raise Oops('not yet')


class Echo:
  def double(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array * 2


class Sender:
  """Sends a large array there and back."""

  def __init__(self, echo: Echo, tally: Tally, size: int) -> None:
    self._echo, self._tally, self._size = echo, tally, size

  def run(self) -> None:
    array = np.arange(self._size, dtype=np.float32)
    back = self._echo.double(array)
    self._tally.note(bool(np.array_equal(back, array * 2)))


class Many:
  """Calls all the others."""

  def __init__(self, others: Sequence[Forever], tally: Tally) -> None:
    self._others, self._tally = others, tally

  def run(self) -> None:
    futures = [call_async(other.ping) for other in self._others]
    self._tally.note(sorted(future.result() for future in futures))


class Debugged:
  """Stops in the debugger; another node waits for its answer meanwhile."""

  def answer(self) -> int:
    secret = 41
    breakpoint()
    return secret + 1


class Failing:
  """Fails with a secret."""

  def run(self) -> None:
    secret = 41
    raise Oops(f'with {secret}')


class Asking:
  def __init__(self, debugged: Debugged) -> None:
    self._debugged = debugged

  def run(self) -> None:
    print('the answer is', self._debugged.answer())


class Witness:
  """Writes down what its process has, then waits for the stop."""

  def __init__(self, name: str, folder: str) -> None:
    print(f'{name} was here', end='')
    links = [os.path.join('/proc/self/fd', fd) for fd in os.listdir('/proc/self/fd')]
    files = [os.path.basename(os.path.realpath(link)) for link in links]
    seen = {
      'pid': os.getpid(),
      'parent': os.getppid(),
      'group': os.getpgid(0),
      'pipes': [file for file in files if file.startswith('pipe:')],
      'environment': dict(os.environ),
      'draws': [random.random(), np.random.random()],
      'terminate': signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    }
    with open(os.path.join(folder, f'{name}.new'), 'w') as file:
      json.dump(seen, file)
    os.rename(file.name, os.path.join(folder, f'{name}.json'))

  def run(self, stop: threading.Event) -> None:
    stop.wait()


class Leaving:
  """Starts a process that would outlive it, and leaves without a word."""

  def __init__(self, path: str) -> None:
    self._path = path

  def run(self) -> None:
    child = subprocess.Popen(['sleep', '600'])
    with open(self._path, 'w') as file:
      file.write(str(child.pid))
    os._exit(3)


class Deaf(Forever):
  """Hears no stop: it is in C code that keeps the interpreter."""

  def run(self, stop: threading.Event) -> None:
    started(self._path)
    ctypes.PyDLL(None).sleep(600)


def ordered(path: str, learner: type[Forever] = Forever) -> Program:
  """Actors call a learner, which calls a replay: a stop has to follow the edges."""
  program = Program('ordered')
  counter = program.add('counter', Forever, 'counter', path)
  replay = program.add('replay', Forever, 'replay', path, counter)
  learner = program.add('learner', learner, 'learner', path, replay, counter)
  with program.group('actor'):
    for _ in range(2):
      program.add('actor', Forever, 'actor', path, learner, replay, counter)
  return program


def beating(*hosts: str, restart: bool = False, pinned: bool = True) -> Program:
  """A tally on the first host, and a heart for each host that beats it for ever."""
  program = Program('beating')
  policy = OnFailure(max_restarts=5, backoff=0.1) if restart else None

  def place(host: str) -> Resources | None:
    return Resources(node_selector={'host': host}) if pinned else None

  tally = program.add(Node('tally', resources=place(hosts[0])), Tally)
  with program.group('heart', restart=policy):
    for host in hosts:
      program.add(Node(host, resources=place(host)), Heart, tally, host)
  return program


def stubborn(path: str) -> Program:
  program = Program('stubborn')
  program.add('stubborn', Stubborn, path)
  return program


def killed(restart: bool = False) -> Program:
  """A node that is killed, and one that misses it."""
  program = Program('killed')
  policy = OnFailure(max_restarts=3, backoff=0.1) if restart else None
  victim = program.add(Node('victim', restart=policy), Suicide, 0.5)
  program.add('mourner', Dependent, victim)
  return program


def debugged() -> Program:
  program = Program('debugged')
  program.add('asking', Asking, program.add('debugged', Debugged))
  return program


def failing() -> Program:
  program = Program('failing')
  program.add('failing', Failing)
  return program


def witnesses(folder: str, *settings: str) -> Program:
  """Each setting is a variable of a witness, '' for none, or 'gpu'."""
  program = Program('witnesses')
  for index, setting in enumerate(settings):
    if setting == 'gpu':
      resources = Resources(gpus=1)
    else:
      variables = dict([setting.split('=')]) if setting else {}
      resources = Resources(environment=variables)
    restart = OnFailure(max_restarts=5, backoff=0.05)
    node = Node(f'w{index}', resources=resources, restart=restart)
    program.add(node, Witness, f'w{index}', folder)
  return program


def leaving(path: str) -> Program:
  program = Program('leaving')
  program.add('leaving', Leaving, path)
  return program


class Where:
  """Tells what its process was given."""

  def variable(self, name: str) -> str | None:
    return os.environ.get(name)

  def run(self, stop: threading.Event) -> None:
    stop.wait()
