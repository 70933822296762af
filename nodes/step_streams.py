"""The time steps of one source, block after block, and the items that they complete.

A window is a block and the time steps before it that an item may still show; in it all
items that the block completes are found at once, wherever the blocks were cut.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import dm_env
import numpy as np
import numpy.typing as npt

from callsheet.agents.base import NStep, Sequences, Table
from callsheet.agents.step_tables import in_progress
from callsheet.errors import UnknownSource
from callsheet.nodes.writing import n_step_transitions

Array = npt.NDArray[Any]
Source = int | str

FIRST, LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class Window(NamedTuple):
  """W time steps of B environments, and the N items that the last T of them complete.

  Items come in the order in which they are complete, whatever T.

  Attributes:
    columns: `[W, B, ...]` each.
    position: `[W, B]` steps since the episode's beginning; -1 before the first FIRST.
    known: W - T, those that are of former blocks.
    environment: `[N]`, whose item it is.
    start: `[N]`, its first row.
    stop: `[N]`, its last row.
    reward: `[N]` float32, of n-step transitions.
    discount: `[N]` float32, likewise.
  """

  columns: dict[str, Array]
  position: Array
  known: int
  environment: Array
  start: Array
  stop: Array
  reward: Array
  discount: Array


class Stream:
  """The time steps of one source.

  Attributes:
    num_environments: B.
    writes: what is made of them.
    busy: whether a block is being written.
    taken: time steps of each environment that it has taken in.
  """

  def __init__(self, writes: NStep | Sequences, num_environments: int) -> None:
    self.num_environments, self.writes, self.busy = num_environments, writes, False
    self.taken = 0
    self.forget()

  def forget(self) -> None:
    """Steps were lost: no item joins what was before them to what comes behind."""
    self._kept: dict[str, Array] = {}
    self._last = np.full(self.num_environments, LAST)
    # Of the newest row: steps since its episode began, and since the stream did.
    self._position = np.full(self.num_environments, -1)
    self._age = np.full(self.num_environments, -1)

  def check(self, table: str, step_type: Array) -> None:
    """A ValueError unless these `[T, B]` may follow."""
    if not len(step_type):
      return
    before = np.concatenate([self._last[None], step_type[:-1]])
    begun = np.concatenate([self._position[None], self._positions(step_type)[:-1]]) >= 0
    wrong = begun & ((step_type == FIRST) != (before == LAST))
    if wrong.any():
      t, b = (int(index[0]) for index in np.nonzero(wrong))
      came = dm_env.StepType(int(step_type[t, b])).name
      raise ValueError(
        f'table {table!r}: FIRST has to follow LAST and nothing else; environment {b} '
        f'has {came} behind {dm_env.StepType(int(before[t, b])).name} at step {t} of '
        f'the block; after a reset begin anew: append(..., fresh=True)'
      )

  def extend(self, block: Mapping[str, Array]) -> Window:
    """Takes in a block.

    Args:
      block: `[T, B, ...]`, T at least 1: `step_type`, for n-step transitions `reward`
        and `discount`, and whatever shall be in the window.
    """
    position = self._positions(block['step_type'])
    age = self._ages(block['step_type'])
    self._last, self._position, self._age = (
      block['step_type'][-1],
      position[-1],
      age[-1],
    )
    block = {**block, 'position': position}
    kept = self._kept or {name: column[:0] for name, column in block.items()}
    known = len(kept['position'])
    self.taken += len(position)
    window = {
      name: np.concatenate([kept[name], column]) if known else column
      for name, column in block.items()
    }
    most = in_progress(self.writes)
    # Copies: what is kept would otherwise hold on to the whole message it came in.
    self._kept = {name: column[-most:].copy() for name, column in window.items()}
    position = window.pop('position')
    if isinstance(self.writes, NStep):
      return _transitions(self.writes, window, position, known)
    return _sequences(self.writes, window, position, known, age)

  def _positions(self, step_type: Array) -> Array:
    steps = np.arange(len(step_type))[:, None]
    begun = np.maximum.accumulate(np.where(step_type == FIRST, steps, -1))
    running = np.where(self._position >= 0, self._position + 1 + steps, -1)
    return np.where(begun >= 0, steps - begun, running)

  def _ages(self, step_type: Array) -> Array:
    steps = np.arange(len(step_type))[:, None]
    first = step_type == FIRST
    begins = np.where(first.any(axis=0), first.argmax(axis=0), len(step_type))
    running = self._age + 1 + steps
    return np.where(self._age >= 0, running, np.maximum(steps - begins, -1))


class Streams:
  """The sources of one table."""

  def __init__(self, table: Table) -> None:
    self._table = table
    self._lock = threading.Lock()
    self._streams: dict[Source, Stream] = {}

  @contextmanager
  def writing(self, source: Source, step_type: Array, fresh: bool) -> Iterator[Stream]:
    """The stream of a source, while a block `[T, B]` is written to it.

    Raises:
      UnknownSource: it has not begun here.
      ValueError: the block can't follow what the source has written.
    """
    with self._lock:
      stream = self._find(source, step_type.shape[1], fresh)
      stream.check(self._table.name, step_type)
      stream.busy = True
      self._streams[source] = stream
    expected = stream.taken + len(step_type)
    try:
      yield stream
    finally:
      with self._lock:
        stream.busy = False
        if stream.taken < expected:
          stream.forget()

  def in_progress(self, source: Source) -> int:
    """Time steps of all but this source that later items may still show."""
    with self._lock:
      return sum(
        stream.num_environments * in_progress(stream.writes)
        for name, stream in self._streams.items()
        if name != source
      )

  def _find(self, source: Source, num_environments: int, fresh: bool) -> Stream:
    name = self._table.name
    if fresh:
      assert self._table.steps is not None
      return Stream(self._table.steps.writes, num_environments)
    if source not in self._streams:
      raise UnknownSource(
        f'table {name!r}: the source {source!r} is not known here; a new one begins '
        f'with append({name!r}, {source!r}, steps, fresh=True)'
      )
    stream = self._streams[source]
    if stream.busy:
      raise ValueError(
        f'table {name!r}: the source {source!r} has a block on its way; its next call '
        f'comes after that'
      )
    if stream.num_environments != num_environments:
      raise ValueError(
        f'table {name!r}: the source {source!r} began with B = '
        f'{stream.num_environments} environments, came {num_environments}'
      )
    return stream


def _transitions(
  writes: NStep, columns: dict[str, Array], position: Array, known: int
) -> Window:
  window = n_step_transitions(
    columns['step_type'],
    columns['reward'][1:],
    columns['discount'][1:],
    writes.n_step,
    writes.discount,
  )
  stop = np.arange(len(window.length))[:, None] + window.length
  new = window.complete & (stop >= known) & (position[:-1] >= 0)
  start, environment = np.nonzero(new)
  stop = stop[new]
  order = np.lexsort((start, environment, stop))
  return Window(
    columns,
    position,
    known,
    environment[order],
    start[order],
    stop[order],
    window.reward[new][order],
    window.discount[new][order],
  )


def _sequences(
  writes: Sequences, columns: dict[str, Array], position: Array, known: int, age: Array
) -> Window:
  length, period = writes.sequence_length, writes.period
  at = age if writes.cross_episodes else position[known:]
  full = (at >= length) & ((at - length) % period == 0)
  done, begin = full, at - length
  if not writes.cross_episodes:
    # The first whose end lies behind the episode's: no step has been left out.
    rest = np.maximum(-(-(at - length) // period) * period, 0)
    begin = np.where(full, begin, rest)
    done = full | ((columns['step_type'][known:] == LAST) & (at >= 1))
  time, environment = np.nonzero(done)
  stop = known + time
  nothing = np.empty(0, np.float32)
  return Window(
    columns,
    position,
    known,
    environment,
    stop - (at - begin)[done],
    stop,
    nothing,
    nothing,
  )
