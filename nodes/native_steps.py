"""Single time steps in a ring of memory, and items that refer to them.

A step is stored once, whatever shows it: an item is the rows where it begins and ends,
and what is its own, as an n-step return. Steps are overwritten in the order in which
they came; what shows one that goes has to go before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from callsheet.agents import step_tables
from callsheet.agents.base import NStep, Steps, Table
from callsheet.agents.step_tables import max_steps
from callsheet.nodes import step_items
from callsheet.nodes.native_columns import Columns, row_bytes
from callsheet.nodes.native_slots import Keys, Slots
from callsheet.nodes.native_storage import Rows
from callsheet.nodes.step_streams import Stream, Window

_ROW = specs.Array((), np.int64)


class Made(NamedTuple):
  """N items that a block completed.

  Attributes:
    block: `[N]` each, those of `item_columns` and, by `oldest` and `age`, under
      which row and of which of its items an item is looked for.
    number: N.
  """

  block: Rows
  number: int


class StepRing:
  """The time steps of one table.

  Attributes:
    storage: what they are stored in.
    written: how many there have been.
  """

  def __init__(self, table: Table, directory: Path | None = None) -> None:
    assert table.steps is not None
    self._steps = table.steps
    self._size = max_steps(table)
    self._stored = Columns(step_columns(table.steps), self._size, directory)
    self.storage = self._stored.storage
    # By the oldest row that it shows, and how far from there it begins: each item.
    stacked = table.steps.writes.num_stacked
    self._keys = np.zeros((self._size, stacked), np.uint64)
    self.written = 0

  @staticmethod
  def memory(table: Table) -> int:
    """Bytes of memory that the steps of a table take besides their columns."""
    assert table.steps is not None
    return max_steps(table) * 8 * table.steps.writes.num_stacked

  @staticmethod
  def on_disk(table: Table) -> int:
    """Bytes of their columns, which may be on disk."""
    assert table.steps is not None
    return max_steps(table) * row_bytes(step_columns(table.steps))

  def in_the_way(self, count: int) -> Keys:
    """Keys of what may show the rows that so many more steps overwrite."""
    keys = self._keys[self._next(count)].ravel()
    return keys[keys > 0]

  def write(self, stream: Stream, block: Mapping[str, NDArray[np.generic]]) -> Made:
    """Stores a block; no item shows what it overwrites.

    Args:
      stream: whose block it is.
      block: columns `[T, B, ...]`, T B at most the size.
    """
    shape = block['step_type'].shape
    count = shape[0] * shape[1]
    rows = self.written + np.arange(count).reshape(shape)
    slots = self._next(count)
    named = [name for name in block if name != 'observation']
    if not isinstance(self._steps.writes, NStep):
      named = ['step_type']
    window = stream.extend({**{name: block[name] for name in named}, 'row': rows})
    self.storage.touch(slots)
    kept = self._steps.writes.num_stacked - 1
    position = np.clip(window.position[window.known :], 0, kept)
    ids = window.columns['row'][max(0, window.known - 1) :]
    previous = ids[:-1] if window.known else np.concatenate([ids[:1], ids[:-1]])
    values = {**block, 'previous': previous % self._size, 'position': position}
    wraps = self._size - int(slots[0])
    for name, view in self._stored.views.items():
      rows_in = values[name].reshape(count, *view.shape[1:])
      view[slots[0] : slots[0] + count] = rows_in[:wraps]
      if wraps < count:
        view[: count - wraps] = rows_in[wraps:]
    self._keys[slots] = 0
    self.written += count
    return self._made(window)

  def register(
    self,
    keys: Keys,
    block: Mapping[str, NDArray[np.generic]],
    part: slice | NDArray[np.int64],
  ) -> None:
    """Notes which items show which rows."""
    self._keys[block['oldest'][part], block['age'][part]] = keys

  def gather(self, items: Rows, into: Rows, part: slice) -> None:
    """Fills the rows of `part` with items `[N]`."""
    step_items.fill(self._steps, self._stored.views, items, into, part)

  def shown(self, items: Rows) -> NDArray[np.int64]:
    """The rows `[N, L + 1]` that sequences `[N]` show."""
    return step_items.sequence_rows(self._steps, self._stored.views, items)

  def restore(self, keys: Keys, items: Rows) -> None:
    """Registers items `[N]`, when both they and the steps are restored."""
    start = items['start'].astype(np.int64)
    views = self._stored.views
    found = step_items.oldest(self._steps, views, start)
    self._keys[found, views['position'][start]] = keys

  def _next(self, count: int) -> Slots:
    return (self.written + np.arange(count)) % self._size

  def _made(self, window: Window) -> Made:
    environment, start = window.environment, window.start
    row = window.columns['row']
    age = np.minimum(
      window.position[start, environment], self._steps.writes.num_stacked - 1
    )
    first = row[start - age, environment]
    # A source that comes back late finds its own last steps overwritten by others'.
    here = first >= self.written - self._size
    if not here.all():
      environment, start, age = environment[here], start[here], age[here]
      first = first[here]
    block = {
      'start': row[start, environment] % self._size,
      'stop': row[window.stop[here], environment] % self._size,
      'oldest': first % self._size,
      'age': age,
    }
    if isinstance(self._steps.writes, NStep):
      block |= {'reward': window.reward[here], 'discount': window.discount[here]}
      for name in ('action', *self._steps.extras):
        block[name] = window.columns[name][start + 1, environment]
    else:
      block['length'] = (window.stop[here] - start).astype(np.int32)
    return Made(block, len(start))


def item_columns(table: Table) -> Mapping[str, specs.Array]:
  """What is stored of an item itself: all of it, or where its steps are."""
  steps = table.steps
  if steps is None:
    return table.columns
  columns = {'start': _ROW, 'stop': _ROW}
  if isinstance(steps.writes, NStep):
    own = ('action', 'reward', 'discount', *steps.extras)
    return {**columns, **{name: table.columns[name] for name in own}}
  return {**columns, 'length': specs.Array((), np.int32)}


def step_columns(steps: Steps) -> Mapping[str, specs.Array]:
  """What is stored of a time step."""
  columns = step_tables.step_columns(steps)
  if isinstance(steps.writes, NStep):
    columns = {'observation': columns['observation']}
  return {**columns, 'previous': _ROW, 'position': specs.Array((), np.uint8)}
