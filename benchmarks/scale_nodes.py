"""The graph of `scale.py`: real replay and counter, and stubs in all other places."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from replay_rows import block_of, table

from callsheet import Program
from callsheet.launch import courier
from callsheet.nodes.counter import Counter
from callsheet.nodes.native_replay import NativeReplay
from callsheet.nodes.relay import Relay
from callsheet.nodes.replay import Replay
from callsheet.nodes.variables import Parameters, ParameterSource

PROCESSES = 4
BATCH, BATCHES = 128, 16  # rows of a sample, samples of a dispatch
BLOCK_PERIOD, PULL_PERIOD, COUNT_PERIOD = 0.1, 0.1, 0.5  # seconds
ROWS = 256  # of a block: 16 steps of 16 environments

TABLE = table('small', 'uniform', 100_000)


class StubLearner:
  """Publishes parameters of a size, and samples as a learner does, at its own pace."""

  def __init__(self, replay: Replay, parameter_bytes: int) -> None:
    self._replay = replay
    self._params = {'weights': np.ones(parameter_bytes // 4, np.float32)}
    self._begun = time.monotonic()

  def parameters(self, known: int = -1) -> Parameters | None:
    version = int((time.monotonic() - self._begun) / PULL_PERIOD)
    return None if known == version else Parameters(version, self._params)

  def run(self, stop: threading.Event) -> None:
    while not stop.wait(0.02):
      self._replay.sample(TABLE.name, BATCH, BATCHES)


class StubActor:
  """Calls as an actor does whose environments and policy take no time at all.

  A call begins when it is due; one that comes late is made at once, so that the rate
  that was asked for is not kept only where a service can't answer fast enough.
  """

  def __init__(
    self, replay: Replay, learner: ParameterSource, counter: Counter
  ) -> None:
    self._services = {'replay': replay, 'learner': learner, 'counter': counter}
    self._version = -1
    self._done: dict[str, int] = {}
    rows = block_of(TABLE, ROWS)
    self._loops: dict[str, tuple[float, Callable[[], object]]] = {
      'replay.insert': (BLOCK_PERIOD, lambda: replay.insert(TABLE.name, rows)),
      'learner.parameters': (PULL_PERIOD, lambda: self._pull(learner)),
      'counter.add': (COUNT_PERIOD, lambda: counter.add(actor_steps=ROWS)),
    }

  def _pull(self, learner: ParameterSource) -> None:
    newer = learner.parameters(self._version)
    if newer is not None:
      self._version = newer.version

  def run(self, stop: threading.Event) -> None:
    due = {
      name: time.monotonic() + np.random.rand() * period
      for name, (period, _) in self._loops.items()
    }
    while not stop.is_set():
      name = min(due, key=lambda each: due[each])
      if stop.wait(max(0.0, due[name] - time.monotonic())):
        return
      period, call = self._loops[name]
      call()
      self._done[name] = self._done.get(name, 0) + 1
      # Far behind, it starts afresh: a backlog would be worked off without a pause.
      due[name] = max(due[name] + period, time.monotonic() - period)

  def done(self) -> dict[str, int]:
    """Calls so far."""
    return dict(self._done)

  def latencies(self) -> dict[str, dict[str, float]]:
    """What the calls of each method took, as seen from here."""
    return {
      f'{service}.{method}': asdict(figures)
      for service, client in self._services.items()
      for method, figures in courier.statistics(client).items()  # type: ignore[arg-type]
    }


def scale_program(
  num_actors: int, parameter_bytes: int, num_relays: int = 0
) -> tuple[Program, list[StubActor]]:
  """So many actors, as threads of a few processes, around one of each service."""
  program = Program('scale')
  replay = program.add('replay', NativeReplay, [TABLE])
  counter = program.add('counter', Counter)
  learner = program.add('learner', StubLearner, replay, parameter_bytes)
  sources: list[ParameterSource] = [learner]
  if num_relays:
    with program.group('relay'):
      sources = [
        program.add('relay', Relay, learner, update_period=PULL_PERIOD)
        for _ in range(num_relays)
      ]
  actors = []
  for process in range(min(PROCESSES, num_actors)):
    with program.group(f'actors-{process}', colocate=True):
      for index in range(process, num_actors, PROCESSES):
        source = sources[index % len(sources)]
        actors.append(program.add(f'actor-{index}', StubActor, replay, source, counter))
  return program, actors
